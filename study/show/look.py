"""What a trained network sees: its filters, maps, evidence, gates."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from models import IMAGE_SIZE, MODELS, build
from utils.augmentation import normalise
from utils.data import Dataset, Split
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
)
from utils.recipes import Recipe
from utils.training import fit

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


def signal(data: Dataset, images: int = 12_000) -> Figure:
    """How strong what leaves each convolution is, before training and after a short epoch.

    The figure shows the standard deviation over images, channels and places, as in training.
    """
    part = data.train.part(slice(images))
    small = replace(data, train=part)
    models, panels, recipe = (1, 2, 3, 4), ([], []), Recipe(epochs=1)
    for model in models:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = build(model)
        trained = fit(MODELS[model], recipe, small, 0, measure_test=False)
        for network, found in ((fresh, panels[0]), (trained.network, panels[1])):
            found.append(_spreads(network, part.images[:500], trained.statistics))
    ends = zip(models, (values[-1] for values in panels[0]), strict=True)
    said = ", ".join(f"{end:.1g} (model {model})" for model, end in ends)
    title = f"Before training the logits spread by {said}: batch norm keeps the signal alive"
    alt = "Standard deviation after each convolution, before training and after a short epoch"
    figure, axes = grid(1, 2, (8, 3.4), title, alt)
    names = "before training", f"after {-(-images // recipe.batch_size)} steps"
    for axis, found, name in zip(axes[0], panels, names, strict=True):
        axis.axis("on")
        for model, values, colour in zip(
            models, found, (BLUE, ORANGE, VERMILION, GREEN), strict=False
        ):
            axis.plot(range(1, len(values) + 1), values, "o-", color=colour, label=f"model {model}")
        axis.set(yscale="log", ylim=(1e-4, 100), xlabel="convolution", title=name)
    axes[0, 0].set_ylabel("standard deviation")
    axes[0, 0].legend(frameon=False)
    return figure


def _spreads(network: nn.Module, images: Tensor, statistics: tuple[float, float]) -> list[float]:
    layers = {name: each for name, each in network.named_modules() if isinstance(each, nn.Conv2d)}
    network.train()  # batch norm by the batch at hand
    with _watched(layers) as found, torch.no_grad(), torch.random.fork_rng(devices=[]):
        network(normalise(images.unsqueeze(1).float() / 255, statistics))
    network.eval()
    return [float(output.std()) for _, output in found]


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
