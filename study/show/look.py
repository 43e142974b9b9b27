"""What a network sees: feature maps, class activation, the signal from layer to layer."""

import contextlib

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from models import IMAGE_SIZE
from study.show.plots import SERIES
from utils.evaluation import predict
from utils.figures import INK, SIGNED, SKY, grid, panels

Statistics = tuple[float, float]  # mean and SD of the pixels, as for `predict`
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


def class_activation(network: nn.Module, images: Tensor, statistics: Statistics) -> Figure:
    """Class activation maps of a pooled head, for its answer and the next best (Zhou et al., 2016).

    The head sums, over the places of the last maps, the channels times their weights; before
    summing, that is a map for each digit. images: [N, 28, 28].
    """
    weight = network.head[-1].weight.detach()[:, :, 0, 0]
    stages = {name: layer for name, layer in network.named_children() if name != "head"}
    maps = list(outputs(network, stages, images, statistics).values())[-1]
    each = torch.einsum("dc,nchw->ndhw", weight, maps) / maps[0, 0].numel()
    best = each.sum((2, 3)).topk(2).indices
    title = "Where the answer comes from: blue places speak for the digit, orange ones against it"
    alt = f"Class activation maps over {len(images)} digits, for the answer and the next best"
    columns = min(5, len(images))
    pairs = -(-len(images) // columns)  # of rows: the answer, and below it the next best
    figure, axes = grid(2 * pairs, columns, (8, 3.5 * pairs + 0.4), title, alt)
    pools = sum(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in stages.values())
    half, middle = maps.shape[-1] * 2**pools / 2, (IMAGE_SIZE - 1) / 2  # pixels
    extent = (middle - half, middle + half, middle + half, middle - half)
    most = 0.6 * float(each.abs().max())
    for index, image in enumerate(images):
        for row, name in enumerate(("", "2nd: ")):
            seen = each[index, digit := int(best[index, row])]
            axis = axes[2 * (index // columns) + row, index % columns]
            axis.imshow(image.numpy(), cmap=INK, vmin=0, vmax=400)
            axis.imshow(seen.numpy(), cmap=SIGNED, vmin=-most, vmax=most, extent=extent, alpha=0.7)
            axis.set(xlim=(0, IMAGE_SIZE - 1), ylim=(IMAGE_SIZE - 1, 0))
            axis.set_title(f"{name}{digit}, {seen.sum():+.1f}", fontsize=12, pad=2)
    return figure


def stages(network: nn.Module, image: Tensor, statistics: Statistics) -> Figure:
    """The feature maps of a digit after every stage of a network. image: [28, 28]."""
    layers = {name: layer for name, layer in network.named_children() if "pool" not in name}
    found = outputs(network, layers, image[None], statistics)
    logits = found.pop("head").flatten()
    sides = ", ".join(f"{maps.shape[-1]}x{maps.shape[-1]}" for maps in found.values())
    title = f"A digit's way through the network ({sides}): it answers {int(logits.argmax())}"
    columns = max(maps.shape[1] for maps in found.values())
    alt = f"The feature maps of a digit after each of {len(found)} stages"
    figure, axes = panels(len(found), columns, (8, 0.85 * len(found) + 0.6), title, alt)
    for row, (name, maps) in zip(axes, found.items(), strict=True):
        for axis in row[len(maps[0]) :]:
            axis.axis("off")
        for axis, seen in zip(row, maps[0], strict=False):
            axis.imshow(seen.numpy(), cmap=INK, vmin=0, vmax=max(float(seen.max()), 1e-6))
            axis.grid(False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color=SKY)
        label = f"{STAGES.get(name, name)}, {maps.shape[-1]}x{maps.shape[-1]}"
        row[0].text(0, 1.08, label, fontsize=11, transform=row[0].transAxes).set_in_layout(False)
    return figure


def outputs(
    network: nn.Module, layers: dict[str, nn.Module], images: Tensor, statistics: Statistics
) -> dict[str, Tensor]:
    """What the named layers of a network put out for images, {name: [N, ...]}."""
    found = {name: [] for name in layers}
    with contextlib.ExitStack() as hooks:  # each is removed at the end
        for name, layer in layers.items():
            hook = layer.register_forward_hook(lambda _, __, y, name=name: found[name].append(y))
            hooks.enter_context(hook)
        predict(network, images, statistics)
    return {name: torch.cat(parts) for name, parts in found.items()}


def signal(before: dict[int, list[float]], after: dict[int, list[float]], steps: int) -> Figure:
    """Standard deviation of each convolution's output, before and after some steps of training.

    Both are {model: one for each layer}.
    """
    first, last = min(before), max(before)
    times = round(before[last][-1] / before[first][-1], -2)  # the same on every processor
    title = f"Before training the logits of model {last} spread {times:,.0f} times as far as those "
    title += f"of model {first}"
    alt = "Standard deviation after each convolution, before training and after a short epoch"
    figure, ((left, right),) = panels(1, 2, (8, 3.4), title, alt)
    for axis, found in ((left, before), (right, after)):
        for (model, values), (colour, _) in zip(found.items(), SERIES, strict=False):
            axis.plot(range(1, len(values) + 1), values, "o-", color=colour, label=f"model {model}")
        axis.set(yscale="log", ylim=(1e-4, 30), xlabel="convolution")
        axis.set_xticks(range(1, 10), ["1", "2", "1x1", "3", "4", "1x1", "5", "6", "head"])
    left.set(title="before training", ylabel="standard deviation")
    right.set(title=f"after {steps} steps")
    left.legend(frameon=False, loc="lower left")
    return figure
