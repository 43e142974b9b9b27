"""Figures of images, and of what networks answer to them: augmented, changed, misclassified."""

from collections.abc import Iterable, Sequence

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from study.digit import Reading
from study.published import DISPUTED
from study.robustness import CONDITIONS, IMAGES
from study.show.plots import SERIES, display_name
from study.statistics import Spread
from utils.augmentation import apply_affine, distort, sample_affine
from utils.data import Split
from utils.figures import BLUE, GREEN, INK, SKY, VERMILION, grid, panels, sized
from utils.recipes import Recipe

FEW = 20  # images, below which a point of the calibration is not drawn
AMOUNTS = {  # of each condition: images ..., how far they change, in which unit
    "rotated": ("rotated counterclockwise", "rotated counterclockwise", "degrees"),
    "shifted": ("shifted to the right and down", "shifted to the right and down", "pixels"),
    "noise": ("under noise", "standard deviation of the noise", "of full ink"),
}


def images(
    pictures: Sequence[Tensor], captions: Sequence[str], title: str, columns: int = 10
) -> Figure:
    """A grid of [28, 28] images, ink dark on white, with a caption above each."""
    rows = max(1, -(-len(pictures) // columns))
    side = 8 / columns  # inches
    alt = f"{len(pictures)} images of digits"
    figure, axes = grid(rows, columns, (8, 1.3 * side * rows + 0.5), title, alt)
    for axis, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        axis.imshow(picture.numpy(), cmap=INK, vmin=0, vmax=255)
        axis.set_title(caption, fontsize=10, pad=2)
    return figure


def examples(labels: Tensor, digits: Iterable[int] = range(10)) -> Tensor:
    """Index of the first image of each digit; of the first at all, where data lack a digit."""
    return torch.stack([(labels == digit).int().argmax() for digit in digits])


def stroke_lengths(train: Split) -> Tensor:
    """Lengths in pixels of every horizontal run of ink (> half grey) in the images."""
    ink = torch.nn.functional.pad(train.images > 127, (1, 1)).to(torch.int8).flatten()
    edges = ink.diff()
    return (edges == -1).nonzero().squeeze(1) - (edges == 1).nonzero().squeeze(1)


def strokes(train: Split, fields: Sequence[int] = (3, 5, 7)) -> Figure:
    """Histogram of stroke widths along rows, and how many fit into a window of each size.

    A window that shows both edges of a stroke is at least two pixels wider than it.
    """
    lengths = stroke_lengths(train)
    shown = [f"{f} pixels {float((lengths <= f - 2).float().mean()):.0%}" for f in fields]
    title = f"Strokes that a window shows with both edges: {', '.join(shown)}"
    alt = "Histogram of the widths of strokes, with the widest that fits into each window"
    figure, axes = sized(8, 3, title, alt)
    share = 100 * torch.bincount(lengths, minlength=16)[:16] / len(lengths)
    axes.bar(range(16), share.tolist(), color=SKY)
    for field, colour in zip(fields, (VERMILION, BLUE, GREEN), strict=False):
        label = f"window of {field}: strokes up to {field - 2} px"
        axes.axvline(field - 1.5, color=colour, linestyle="--", label=label)
    axes.set(xlabel="width of a stroke along a row, pixels", ylabel="share of strokes, %")
    axes.legend(frameon=False)
    return figure


def rotation_angles(matrices: Tensor) -> list[float]:
    """Rotation of each matrix in degrees, counterclockwise; for captions. matrices: [N, 2, 3]."""
    return torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])).tolist()


def augmented(originals: Tensor, recipe: Recipe, rows: int = 2) -> Figure:
    """Training images [N, 28, 28], and below rows of draws of a recipe's augmentation."""
    generator = torch.Generator().manual_seed(0)
    pictures, captions = list(originals), ["original"] * len(originals)
    for _ in range(rows):
        matrices = sample_affine(recipe, len(originals), generator)
        changed = originals.unsqueeze(1).float()
        if recipe.distorts:
            changed = 255 * distort(changed / 255, matrices, recipe, generator, 1.0)
        else:
            changed = apply_affine(changed, matrices)
        pictures += list(changed.squeeze(1))
        captions += [f"{angle:+.1f}°" for angle in rotation_angles(matrices)]
    angles = " + ".join(f"{limit:g}" for limit in recipe.rotations)
    title = f"Rotated by up to {angles} degrees the digits stay what they are"
    if recipe.distorts:
        title = "Bent, thick, thin, coarse or pale: a few are hard to read, even for people"
    return images(pictures, captions, title, columns=len(originals))


def robustness(accuracies: dict[str, list[Spread]], condition: str) -> Figure:
    """Mean accuracy under one of `CONDITIONS`, from `study.robustness.accuracies`."""
    values, (changed, axis, unit) = CONDITIONS[condition], AMOUNTS[condition]
    said = ", ".join(f"{display_name(n)}: {ends[-2].mean:.0f} %" for n, ends in accuracies.items())
    title = f"Accuracy on images {changed}; at {values[-2]:g} {unit}: {said}"
    alt = f"Accuracy on the first {IMAGES:,} test images against the amount by which they change"
    figure, axes = sized(8, 3.6, title, alt)
    for (name, spreads), (colour, marker) in zip(accuracies.items(), SERIES, strict=False):
        label = f"{display_name(name)} (n = {spreads[0].n})"
        axes.plot(values, [s.mean for s in spreads], color=colour, marker=marker, label=label)
    axes.set(xlabel=f"{axis}, {unit}", ylabel=f"% of {IMAGES:,} test images", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure


def shared_mistakes(found: tuple[int, int, list[tuple[int, float, int]]], test: Split) -> Figure:
    """The test images that many networks misclassify, as found by `study.robustness`."""
    n, missed, shared = found
    disputed = sum(index in DISPUTED for index, *_ in shared)
    title = f"{len(shared)} test images, {disputed} with a disputed label, are misread by most of "
    title += f"{n} networks; {missed} by at least one"
    some = test.part([index for index, *_ in shared])
    captions = [
        f"{label}{'*' if index in DISPUTED else ''} as {answer}, {share:.0%}"
        for label, (index, share, answer) in zip(some.labels.tolist(), shared, strict=True)
    ]
    return images(some.images, captions, title, columns=7)


def calibration(found: tuple[float, list[tuple[float, float, int]]], name: str) -> Figure:
    """How often networks are correct against how sure they are, by `study.robustness.calibration`.

    Bins of few images are left out.
    """
    error, points = found
    title = f"{display_name(name).capitalize()}: confidence and accuracy are {error:.2f} points "
    alt = "Share of correct answers against the probability given, with the number of answers"
    figure, axes = sized(6.5, 4, title + "apart on average", alt)
    sure, share, counts = zip(*(point for point in points if point[2] >= FEW), strict=True)
    x, y = (100 * numpy.array(values) for values in (sure, share))
    axes.plot([0, 100], [0, 100], color=SKY, linestyle="--", label="as sure as correct")
    axes.plot(x, y, "o-", color=BLUE, label="the networks")
    style = {"textcoords": "offset points", "fontsize": 9, "ha": "right"}
    for *place, count in zip(x, y, counts, strict=True):
        axes.annotate(f"{count:,}", place, (-6, 4), **style)
    axes.set(xlabel="probability of the answer, %", ylabel="correct answers, %")
    axes.legend(frameon=False)
    return figure


def answer(reading: Reading) -> Figure:
    """A network's input, and its ten probabilities."""
    title, alt = f"The network's answer: {reading}", "28x28 pixels, and ten bars of probability"
    figure, ((left, right),) = panels(1, 2, (7, 2.8), title, alt)
    left.imshow(reading.image.numpy(), cmap=INK, vmin=0, vmax=255)
    left.set_title("what it sees", fontsize=11)
    left.axis("off")
    colours = [BLUE if digit == reading.digit else SKY for digit in range(10)]
    right.bar(range(10), [100 * p for p in reading.probabilities], color=colours)
    right.set(xlabel="digit", ylabel="probability, %", xticks=range(10), ylim=(0, 100))
    return figure
