"""A network as it is built: its diagram, what each layer sees, all its parameters on a page."""

import math
from dataclasses import replace

import numpy
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from models import IMAGE_SIZE, MODELS, Config
from utils.figures import (
    BLACK,
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SIGNED,
    SKY,
    VERMILION,
    YELLOW,
    sized,
)
from utils.layers import LayerRow, layer_rows

PAGE, WORDS = 115, 16  # weights side by side; as wide as a layer's name
MARKS = {"batch norm": GREEN, "dropout": PURPLE}  # strips in a block
TALLEST, WIDEST = 64, 28  # channels and pixels that fill a diagram's column


def diagram(model: int | Config, before: int | Config | None = None) -> Figure:
    """A network as blocks: height is resolution, width is channels; what changed is orange.

    Args:
        model: a number or a config.
        before: what it is compared with; default the model one less, if there is one.
    """
    if before is None and isinstance(model, int) and model - 1 in MODELS:
        before = model - 1
    blocks = _blocks(model)
    old = _blocks(before) if before is not None else blocks
    total, previous = (sum(block.parameters for block in row) for row in (blocks, old))
    name = f"Model {model}" if isinstance(model, int) else "The network"
    changed = [_changed(block, old[i : i + 1]) for i, block in enumerate(blocks)]
    title = f"{name}: {total:,} parameters"
    if any(changed):
        title = f"{name}: {total:,} parameters, {total - previous:+,}; what changed is orange"
    elif before is not None:
        title = f"{name}: the same {total:,} parameters; what changed is the training"
    figure, axes = sized(8, 3.1, title, f"{name} as blocks: " + "; ".join(map(_said, blocks)))
    for x, (block, new) in enumerate(zip(blocks, changed, strict=True)):
        _draw(axes, x, block, ORANGE if new else SKY)
    axes.set(xlim=(-0.6, len(blocks) - 0.4), ylim=(-0.62, 1.15))
    axes.axis("off")
    for word, colour in MARKS.items():
        if any(word in block.layer for block in blocks):
            axes.plot([], [], color=colour, linewidth=5, label=word)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=11)
    return figure


def _blocks(model: int | Config) -> list[LayerRow]:
    """One row a convolution or pool, with all that follows it up to the next."""
    blocks: list[LayerRow] = []
    for row in layer_rows(MODELS[model] if isinstance(model, int) else model):
        separable = blocks and blocks[-1].layer.startswith("depthwise")
        if row.spatial and not (separable and row.layer.startswith("conv 1x1")):
            blocks.append(row)
        else:
            blocks[-1] = blocks[-1].followed_by(row)
            if row.spatial:  # a separable block has the channels of its second convolution
                blocks[-1] = replace(blocks[-1], output=row.output)
    return blocks


def _changed(block: LayerRow, old: list[LayerRow]) -> bool:
    return [(block.layer, block.output[0])] != [(row.layer, row.output[0]) for row in old]


def _said(block: LayerRow) -> str:
    size = "x".join(map(str, block.output))
    return f"{block.layer} to {size}, {block.parameters:,} parameters"


def _draw(axes, x: int, block: LayerRow, colour: str) -> None:
    channels, side, _ = block.output
    width, height = 0.08 + 0.84 * min(1, channels / TALLEST), 0.1 + 0.9 * side / WIDEST
    axes.add_patch(Rectangle((x - width / 2, 0), width, height, facecolor=colour, edgecolor=BLACK))
    for place, (word, mark) in enumerate(MARKS.items()):
        if word in block.layer:
            at = (x - width / 2, height * (0.06 + 0.16 * place))
            axes.add_patch(Rectangle(at, width, height * 0.12, facecolor=mark))
    style = {"ha": "center", "fontsize": 11}
    axes.text(x, height + 0.03, channels, **style)
    kind = block.layer.split(",")[0].replace("conv ", "").replace("average", "avg")
    kind = kind.replace(" pool ", "\n").replace("depthwise 3x3", "3x3,\n1x1")
    axes.text(x, -0.05, kind, va="top", **style)
    if block.parameters:
        axes.text(x, -0.4, f"{block.parameters:,}", va="top", color=BLUE, **style)


def receptive_fields(image: Tensor, model: int | Config) -> Figure:
    """A digit with the square that one output of each layer sees, around its middle."""
    fields: dict[int, str] = {}
    for block in _blocks(model):
        fields.setdefault(block.receptive_field, block.layer.split(",")[0])
    title = f"Each layer sees more: {', '.join(map(str, fields))} pixels across"
    figure, axes = sized(7.5, 5, title, "A digit under nested squares, one for each layer")
    axes.imshow(image.numpy(), cmap=INK, vmin=0, vmax=400)
    colours = VERMILION, ORANGE, GREEN, SKY, BLUE, PURPLE, YELLOW, BLACK
    middle = (IMAGE_SIZE - 1) / 2
    for index, (field, layer) in enumerate(fields.items()):
        corner = middle - field / 2
        style = {"fill": False, "edgecolor": colours[index % len(colours)], "linewidth": 2.5}
        axes.add_patch(
            Rectangle((corner, corner), field, field, label=f"{field}: {layer}", **style)
        )
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=12)
    edge = max(0, (max(fields) - IMAGE_SIZE) / 2) + 1
    axes.set(xlim=(-edge, IMAGE_SIZE - 1 + edge), ylim=(IMAGE_SIZE - 1 + edge, -edge))
    axes.set(xlabel="pixels", ylabel="pixels")
    axes.grid(False)
    return figure


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
