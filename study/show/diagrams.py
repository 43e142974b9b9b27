"""A network as it is built: its diagram, and what each layer sees."""

import re
from dataclasses import replace
from difflib import unified_diff

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from models import IMAGE_SIZE, MODELS, Config, build
from utils.figures import BLACK, BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, YELLOW, sized
from utils.layers import LayerRow, layer_rows

MARKS = {"batch norm": GREEN, "dropout": PURPLE}  # strips in a block
MAX_CHANNELS, MAX_SIDE = 64, 28  # channels and pixels that fill a column's width and height


def diagram(model: int | Config) -> Figure:
    """A network as blocks: height is resolution, width is channels; what changed is orange.

    One of the ten is compared with the model one less, if there is one.
    """
    blocks, compared = _blocks(model), isinstance(model, int) and model - 1 in MODELS
    old = _blocks(model - 1) if compared else blocks
    total, previous = (sum(block.parameters for block in row) for row in (blocks, old))
    name = f"Model {model}" if isinstance(model, int) else "The network"
    changed = [[block] != old[i : i + 1] for i, block in enumerate(blocks)]
    title = f"{name}: {total:,} parameters"
    if any(changed):
        title = f"{name}: {total:,} parameters, {total - previous:+,}; what changed is orange"
    elif compared:
        title = f"{name}: the same {total:,} parameters; what changed is the training"
    sizes = ("x".join(map(str, block.output)) for block in blocks)
    pairs = zip(blocks, sizes, strict=True)
    said = (f"{block.layer} to {size}, {block.parameters:,} parameters" for block, size in pairs)
    figure, axes = sized(8, 3.1, title, f"{name} as blocks: {'; '.join(said)}")
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


def _draw(axes, x: int, block: LayerRow, colour: str) -> None:
    channels, side, _ = block.output
    width, height = 0.08 + 0.84 * min(1, channels / MAX_CHANNELS), 0.1 + 0.9 * side / MAX_SIDE
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


def changed_layers(before: int, after: int) -> str:
    """The layers in which two of the ten differ, a line each: - before, + after."""
    sides = []
    for model in (before, after):
        lines = (f"{name}: {layer}" for name, layer in build(model).named_modules())
        sides.append([re.sub(", eps.*", ")", line) for line in lines if "\n" not in line])
    return "\n".join(line for line in list(unified_diff(*sides, n=0))[2:] if line[0] in "-+")


def receptive_fields(image: Tensor, model: int | Config) -> Figure:
    """A digit with the square that one output of each layer sees, around its middle."""
    fields: dict[int, str] = {}
    for block in _blocks(model):
        fields.setdefault(block.receptive_field, block.layer.split(",")[0])
    title = f"Each layer sees more: {', '.join(map(str, fields))} pixels across"
    figure, axes = sized(7.5, 5, title, "A digit under nested squares, one for each layer")
    axes.imshow(image.numpy(), cmap=INK, vmin=0, vmax=400)
    colours = VERMILION, ORANGE, GREEN, SKY, BLUE, PURPLE, YELLOW, BLACK
    for index, (field, layer) in enumerate(fields.items()):
        corner = (IMAGE_SIZE - field) // 2 - 0.5  # at the border of a pixel
        style = {"edgecolor": colours[index % len(colours)], "label": f"{field}: {layer}"}
        square = Rectangle((corner, corner), field, field, fill=False, linewidth=2.5, **style)
        axes.add_patch(square)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=12)
    edge = max(0, (max(fields) - IMAGE_SIZE) / 2) + 1
    axes.set(xlim=(-edge, IMAGE_SIZE - 1 + edge), ylim=(IMAGE_SIZE - 1 + edge, -edge))
    axes.set(xlabel="pixels", ylabel="pixels")
    axes.grid(False)
    return figure
