"""What a trained network sees: its filters, maps, evidence, gates."""

import contextlib
import math
from collections.abc import Iterator

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from models import IMAGE_SIZE
from utils.augmentation import normalise
from utils.data import Split
from utils.evaluation import predict
from utils.figures import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SIGNED,
    SKY,
    VERMILION,
    grid,
    panels,
    sized,
)

STAGES = {  # of both bodies in `models`, in words
    "edges": "two 3x3 convolutions",
    "squeeze_1": "max pool, then a 1x1 squeeze",
    "middle": "two more 3x3 convolutions",
    "squeeze_2": "a 1x1 squeeze",
    "late": "the last two 3x3 convolutions",
    "first": "a 3x3 convolution",
    "at_28": "separable blocks",
    "at_14": "max pool, then separable blocks",
    "at_7": "average pool, then separable blocks",
}


def slope_share(kernels: Tensor) -> Tensor:
    """How much of each 3x3 kernel is a slope from one side to the other, that is, sees an edge.

    The share of its squared weights that the two plain gradients explain, 0..1. kernels: [N, 3, 3].
    """
    across = torch.tensor([-1.0, 0.0, 1.0]).expand(3, 3) / 6**0.5
    along = [(kernels * direction).sum((1, 2)) for direction in (across, across.T)]
    return (along[0] ** 2 + along[1] ** 2) / (kernels**2).sum((1, 2))


def first_filters(network: nn.Module, image: Tensor, statistics: tuple[float, float]) -> Figure:
    """The filters of the first convolution, and what each makes of a digit. image: [28, 28]."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    kernels = first.weight.detach()[:, 0]
    with torch.inference_mode():
        maps = first(normalise(image[None, None].float() / 255, statistics))[0]
    shares = slope_share(kernels)
    title = (
        f"{int((shares > 0.5).sum())} of the {len(kernels)} first filters are mostly a slope, that "
        f"is, edge detectors; the average is {shares.mean():.0%} slope, a random filter 22%"
    )
    alt = f"{len(kernels)} filters of 3x3 weights, and below each what it makes of a digit"
    figure, axes = grid(2, len(kernels), (8, 2.6), title, alt)
    most = float(kernels.abs().max())
    for column, (kernel, share, seen) in enumerate(zip(kernels, shares, maps, strict=True)):
        axes[0, column].imshow(kernel.numpy(), cmap=SIGNED, vmin=-most, vmax=most)
        axes[0, column].set_title(f"{share:.0%}", fontsize=11, pad=2)
        reach = float(seen.abs().max())
        axes[1, column].imshow(seen.numpy(), cmap=SIGNED, vmin=-reach, vmax=reach)
    return figure


def evidence(network: nn.Module, images: Tensor, statistics: tuple[float, float]) -> Figure:
    """Where a network with a pooled head finds evidence for its answer, and for the next best.

    The head adds up, over the places of the last maps, the channels times their weights; before
    adding, that is a map for each digit. images: [N, 28, 28].
    """
    weight = network.head[-1].weight.detach()[:, :, 0, 0]
    maps = _outputs(network, images, statistics)[-1][1]
    each = torch.einsum("dc,nchw->ndhw", weight, maps) / maps[0, 0].numel()
    best = each.sum((2, 3)).topk(2).indices
    title = "Where the answer comes from: blue places speak for the digit, orange-red against it"
    alt = f"{len(images)} digits with the evidence of each place for the answer and the next best"
    columns = min(5, len(images))
    pairs = -(-len(images) // columns)  # of rows: the answer, and below it the next best
    figure, axes = grid(2 * pairs, columns, (8, 3.5 * pairs + 0.4), title, alt)
    pools = sum(isinstance(part, nn.MaxPool2d | nn.AvgPool2d) for part in network.children())
    side, step = maps.shape[-1], 2**pools  # pixels from one place to the next
    half, middle = side * step / 2, (IMAGE_SIZE - 1) / 2
    extent = (middle - half, middle + half, middle + half, middle - half)
    most = 0.6 * float(each.abs().max())  # stronger than that is the same full colour
    style = {"cmap": SIGNED, "vmin": -most, "vmax": most, "extent": extent, "alpha": 0.7}
    for index, image in enumerate(images):
        for row in range(2):
            digit = int(best[index, row])
            axis = axes[2 * (index // columns) + row, index % columns]
            axis.imshow(image.numpy(), cmap=INK, vmin=0, vmax=400)
            axis.imshow(each[index, digit].numpy(), **style)
            axis.set(xlim=(0, IMAGE_SIZE - 1), ylim=(IMAGE_SIZE - 1, 0))
            name = ("next best: ", "")[row == 0]
            axis.set_title(f"{name}{digit}, {each[index, digit].sum():+.1f}", fontsize=12, pad=2)
    return figure


def stages(network: nn.Module, image: Tensor, statistics: tuple[float, float]) -> Figure:
    """A digit's way through a network: the maps of every stage. image: [28, 28]."""
    found = _outputs(network, image[None], statistics)
    found = [(name, maps) for name, maps in found if "pool" not in name]
    probabilities = predict(network, image[None], statistics).exp()[0]
    digit = int(probabilities.argmax())
    sides = ", ".join(f"{maps.shape[-1]}x{maps.shape[-1]}" for _, maps in found)
    title = f"A digit's way through the network ({sides}): it answers {digit}"
    title += f", at {probabilities[digit]:.0%}"
    columns = max(maps.shape[1] for _, maps in found)
    alt = f"The feature maps of a digit after each of {len(found)} stages"
    figure, axes = grid(len(found), columns, (8, 0.85 * len(found) + 0.6), title, alt)
    for row, (name, maps) in zip(axes, found, strict=True):
        for axis, seen in zip(row, maps[0], strict=False):
            axis.imshow(seen.numpy(), cmap=INK, vmin=0, vmax=max(float(seen.max()), 1e-6))
            axis.axis("on")
            axis.grid(False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color=SKY)
        label = f"{STAGES.get(name, name)}, {maps.shape[-1]}x{maps.shape[-1]}"
        row[0].text(0, 1.08, label, fontsize=11, transform=row[0].transAxes).set_in_layout(False)
    return figure


def _outputs(network: nn.Module, images: Tensor, statistics) -> list[tuple[str, Tensor]]:
    """Name and output [N, C, H, W] of every stage but the head."""
    stages = {name: stage for name, stage in network.named_children() if name != "head"}
    with _watched(stages) as found:
        predict(network, images, statistics)
    return found


@contextlib.contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[list[tuple[str, Tensor]]]:
    """Within, the output of every layer is listed with its name."""
    found = []
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: found.append((name, output.detach()))
        )
        for name, layer in layers.items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def signal(before: dict[int, list[float]], after: dict[int, list[float]], steps: int) -> Figure:
    """How strong what leaves each convolution is, before training and after some steps.

    Args:
        before: standard deviations by `utils.evaluation.activation_std`, {model: one a layer}.
        after: the same after training.
        steps: how many steps of training lie between.
    """
    said = ", ".join(f"{values[-1]:.1g} (model {model})" for model, values in before.items())
    title = f"Before training the logits spread by {said}: batch norm keeps the signal alive"
    alt = "Standard deviation after each convolution, before training and after a short epoch"
    figure, axes = panels(1, 2, (8, 3.4), title, alt)
    names = "before training", f"after {steps} steps"
    for axis, found, name in zip(axes[0], (before, after), names, strict=True):
        for (model, values), colour in zip(
            found.items(), (BLUE, ORANGE, VERMILION, GREEN), strict=False
        ):
            axis.plot(range(1, len(values) + 1), values, "o-", color=colour, label=f"model {model}")
        axis.set(yscale="log", ylim=(1e-4, 100), xlabel="convolution", title=name)
    axes[0, 0].set_ylabel("standard deviation")
    axes[0, 0].legend(frameon=False)
    return figure


def gates(network: nn.Module, test: Split, statistics: tuple[float, float]) -> Figure:
    """How far each gate (Squeeze-and-Excitation) opens on average, for each true digit."""
    found = gate_means(network, test, statistics)
    seen = [values[values.isfinite().all(1)] for values in found]
    apart = max(float((values.amax(0) - values.amin(0)).max()) for values in seen)
    title = f"What the gates let through depends on the digit: for one channel by up to {apart:.2f}"
    alt = f"Mean opening of every gate in {len(found)} stages, a row for each digit"
    figure, axes = grid(1, len(found), (8, 3.2), title, alt)
    for number, (axis, values) in enumerate(zip(axes[0], found, strict=True), 1):
        axis.axis("on")
        shown = axis.imshow(values.numpy(), cmap=INK, vmin=0, vmax=1, aspect="auto")
        axis.set(title=f"stage {number}", xlabel="channel", yticks=range(10))
        axis.grid(False)
    axes[0, 0].set_ylabel("digit")
    figure.colorbar(shown, ax=axes[0].tolist(), label="mean factor, 0 to 1")
    return figure


def gate_means(network: nn.Module, test: Split, statistics: tuple[float, float]) -> list[Tensor]:
    """Of each gate the mean factor by digit and channel, [10, C]; NaN for a digit without images.

    Raises:
        ValueError: for a network without gates.
    """
    # torchvision's SqueezeExcitation ends in a layer of that name
    named = network.named_modules()
    gated = {name: layer for name, layer in named if name.endswith(".scale_activation")}
    if not gated:
        raise ValueError("the network has no gates: set squeeze_excitation in its config")
    with _watched(gated) as found:
        predict(network, test.images, statistics)
    factors = [torch.cat([out.flatten(1) for n, out in found if n == name]) for name in gated]
    of_digit = [test.labels == digit for digit in range(10)]
    return [torch.stack([values[rows].mean(0) for rows in of_digit]) for values in factors]


PAGE, WORDS = 115, 16  # weights side by side; as wide as a layer's name


def parameters(network: nn.Module) -> Figure:
    """Every learned number of a network on one page, in the order data passes them."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    count = sum(parameter.numel() for parameter in network.parameters())
    title = f"All {count:,} parameters, in the order data passes them: blue above zero, red below; "
    title += "two rows under a convolution are its batch norm"
    pictures, x, y, right, low, wide = [], 0, 0, 0, 0, 0  # the next begins right of the last
    for layer in layers:
        picture = _picture(layer)
        (height, width), over = picture.shape, pictures[-1] if pictures else None
        if isinstance(layer, nn.BatchNorm2d):  # under its convolution
            place = over[2], over[3] + over[1].shape[0] + 1
            right = max(right, x + width)
        else:
            x = right + 3 if over else 0
            if x + width > PAGE:
                x, y = 0, low + 4
            place, right = (x, y), x + max(width, WORDS)
        pictures.append((layer, picture, *place))
        low, wide = max(low, place[1] + height), max(wide, place[0] + width)
    alt = f"Every weight of the network as a coloured square, in {len(layers)} layers"
    figure, axes = sized(8, 0.6 + 7.7 * (low + 4) / wide, title, alt)
    for layer, picture, left, top in pictures:
        most, (height, width) = max(numpy.nanmax(abs(picture)), 1e-6), picture.shape
        extent = (left, left + width, top + height, top)
        axes.imshow(picture, cmap=SIGNED, vmin=-most, vmax=most, extent=extent)
        if isinstance(layer, nn.Conv2d):
            axes.text(left, top - 0.5, _layer_name(layer), fontsize=9)
    axes.set(xlim=(0, wide), ylim=(low, -4))
    axes.axis("off")
    return figure


def _layer_name(layer: nn.Conv2d) -> str:
    size = layer.kernel_size[0]
    if layer.groups > 1:
        return f"{layer.in_channels} kernels {size}x{size}"
    return f"{size}x{size}, {layer.in_channels} to {layer.out_channels}"


def _picture(layer: nn.Module) -> numpy.ndarray:
    """A layer's parameters as a matrix; kernels with gaps (NaN) between them."""
    if isinstance(layer, nn.BatchNorm2d):
        return numpy.stack([layer.weight.detach().numpy() - 1, layer.bias.detach().numpy()])
    weight = layer.weight.detach().numpy()
    outputs, inputs, size, _ = weight.shape
    if size == 1:
        return weight[:, :, 0, 0]
    if inputs == 1:  # a kernel for each channel, as a block
        inputs = math.ceil(outputs**0.5)
        missing = -outputs % inputs
        weight = numpy.pad(
            weight, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=numpy.nan
        ).reshape(-1, inputs, size, size)
        outputs = len(weight)
    gap = numpy.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=numpy.nan)
    return gap.transpose(0, 2, 1, 3).reshape(outputs * (size + 1), inputs * (size + 1))[:-1, :-1]
