"""Figures of images, and of what networks answer to them: warped, turned, mistaken, foreign."""

from collections.abc import Iterable, Sequence

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from models import IMAGE_SIZE
from utils.augment import draw_warps, warp, warp_angles
from utils.data import Split
from utils.digit import Reading, as_mnist
from utils.figures import BLUE, GREEN, INK, ORANGE, SKY, VERMILION, grid, sized
from utils.measure import predict
from utils.plots import called, lines
from utils.recipes import DISPUTED, Recipe
from utils.records import Record
from utils.store import load_network


def samples_per_class(train: Split, test: Split) -> Figure:
    """Bars: images of each digit in both halves."""
    counts = {
        "train": torch.bincount(train.labels, minlength=10),
        "test": torch.bincount(test.labels, minlength=10),
    }
    least, most = int(counts["train"].min()), int(counts["train"].max())
    title = "Some digits have no images"
    if least:
        ratio = f"the most frequent digit has {most / least:.2f} x the rarest"
        title = f"The classes are {'nearly balanced' if most < 2 * least else 'uneven'}: {ratio}"
    figure, axes = sized(8, 3, title, "Bar chart of the images of each digit")
    for offset, (name, count), colour in zip(
        (-0.2, 0.2), counts.items(), (BLUE, ORANGE), strict=True
    ):
        axes.bar(numpy.arange(10) + offset, count.tolist(), 0.4, label=name, color=colour)
    axes.set(xlabel="digit", ylabel="images", xticks=range(10))
    axes.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.2))
    return figure


def images(
    pictures: Sequence[Tensor], captions: Sequence[str], title: str, columns: int = 10
) -> Figure:
    """A grid of [28, 28] images, ink dark on white, with a caption above each."""
    rows = -(-len(pictures) // columns)
    side = 8 / columns  # inches
    alt = f"{len(pictures)} images of digits"
    figure, axes = grid(rows, columns, (8, 1.3 * side * rows + 0.5), title, alt)
    for axis, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        axis.imshow(picture.numpy(), cmap=INK, vmin=0, vmax=255)
        axis.set_title(caption, fontsize=10, pad=2)
    return figure


def stroke_lengths(train: Split) -> Tensor:
    """Lengths in pixels of every horizontal run of ink (> half grey) in the images."""
    ink = torch.nn.functional.pad(train.images > 127, (1, 1)).to(torch.int8).flatten()
    edges = ink.diff()
    return (edges == -1).nonzero().squeeze(1) - (edges == 1).nonzero().squeeze(1)


def strokes(train: Split, fields: Sequence[int] = (3, 5, 7)) -> Figure:
    """Histogram of stroke widths: how many fit, with both edges, into a window of each size.

    A window that shows both edges of a stroke is at least two pixels wider than it.
    """
    lengths = stroke_lengths(train)
    shown = [f"of {f}, {float((lengths <= f - 2).float().mean()):.0%}" for f in fields]
    title = f"Widths of strokes: how many a window shows with both edges: {'; '.join(shown)}"
    alt = "Histogram of the widths of strokes, with the widest that fits into each window"
    figure, axes = sized(8, 3, title, alt)
    share = 100 * torch.bincount(lengths, minlength=16)[:16] / len(lengths)
    axes.bar(range(16), share.tolist(), color=SKY)
    for field, colour in zip(fields, (VERMILION, BLUE, GREEN), strict=False):
        label = f"widest for a window of {field}"
        axes.axvline(field - 1.5, color=colour, linestyle="--", label=label)
    axes.set(xlabel="width of a horizontal run of ink, pixels", ylabel="share of runs, %")
    axes.legend(frameon=False)
    return figure


def examples(labels: Tensor, digits: Iterable[int] = range(10)) -> Tensor:
    """Index of the first image of each digit."""
    return torch.stack([(labels == digit).nonzero()[0, 0] for digit in digits])


def warped(originals: Tensor, recipe: Recipe, rows: int = 2) -> Figure:
    """Training images, and as many independent draws of a recipe's warps below. [N, 28, 28]."""
    generator = torch.Generator().manual_seed(0)
    pictures, captions = list(originals), ["original"] * len(originals)
    for _ in range(rows):
        matrices = draw_warps(recipe, len(originals), generator)
        pictures += list(warp(originals.unsqueeze(1).float(), matrices).squeeze(1))
        captions += [f"{angle:+.1f}°" for angle in warp_angles(matrices)]
    most = sum(recipe.rotations)
    title = f"Turned by up to {most:g} degrees the digits stay what they are"
    return images(pictures, captions, title, columns=len(originals))


def turned(images: Tensor, degrees: float) -> Tensor:
    """Images [N, 28, 28] uint8, all turned counterclockwise by the same angle."""
    angle = torch.deg2rad(torch.tensor(degrees))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(())
    matrix = torch.stack([torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero])])
    matrices = matrix.expand(len(images), 2, 3)
    return warp(images.unsqueeze(1).float(), matrices).squeeze(1).round().to(torch.uint8)


def rotation(runs: Sequence[Record], test: Split, images: int = 1_000) -> Figure:
    """Accuracy of recorded networks on the first test images, all turned by the same angle."""
    angles = list(range(-45, 46, 15))
    found = {}
    for run in runs:
        network = load_network(run)
        shares = []
        for angle in angles:
            answers = predict(network, turned(test.images[:images], angle), run.statistics)
            hits = (answers.argmax(1) == test.labels[:images]).sum()
            shares.append(100 * int(hits) / min(images, len(test)))
        found[called(run.run.name)] = (angles, shares)
    at = {name: shares[angles.index(30)] for name, (_, shares) in found.items()}
    said = ", ".join(f"{name} {share:.0f} %" for name, share in at.items())
    title = f"Accuracy on turned images; at 30 degrees: {said}"
    alt = "Test accuracy against the angle by which all images are turned"
    return lines(found, title, alt, "turned by, degrees", "test accuracy, %", ylim=(0, 101))


def shared_mistakes(runs: Sequence[Record], test: Split) -> Figure:
    """The test images that all recorded networks whose weights are kept get wrong."""
    kept = [run for run in runs if run.weights_path.exists()]
    answers = torch.stack(
        [predict(load_network(run), test.images, run.statistics).argmax(1) for run in kept]
    )
    wrong = answers != test.labels
    every = wrong.all(0).nonzero()[:, 0]
    total = int(wrong.any(0).sum())
    title = (
        f"{len(every)} test images are missed by all {len(kept)} networks, {total} by at least "
        "one; above each its label and the answers"
    )
    captions = [
        f"{int(test.labels[i])}: {', '.join(map(str, sorted(set(answers[:, i].tolist()))))}"
        + ("*" if int(i) in DISPUTED else "")
        for i in every
    ]
    return images(test.images[every], captions, title, columns=8)


def foreign_digits(run: Record) -> str:
    """How a recorded network reads scikit-learn's 8x8 digits: prepared, and merely enlarged.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, 1998 (test part).
    """
    from sklearn.datasets import load_digits  # a second to import

    found, network = load_digits(), load_network(run)
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(found.images)[:, None] / 16, IMAGE_SIZE, mode="bilinear"
    )
    prepared = torch.stack([as_mnist(image) for image in found.images])
    labels = torch.from_numpy(found.target)
    right = [
        100 * float((predict(network, each, run.statistics).argmax(1) == labels).float().mean())
        for each in (prepared, plain)
    ]
    return (
        f"{run.run.name}: {right[0]:.1f} % of {len(labels):,} digits right when prepared as MNIST, "
        f"{right[1]:.1f} % when merely enlarged"
    )


def answer(reading: Reading) -> Figure:
    """What a network saw of a picture, and its ten probabilities."""
    figure, axes = grid(1, 2, (7, 2.8), f"The network reads {reading}", f"28x28 pixels: {reading}")
    left, right = axes[0]
    left.imshow(reading.image.numpy(), cmap=INK, vmin=0, vmax=255)
    left.set_title("what it sees", fontsize=11)
    colours = [BLUE if digit == reading.digit else SKY for digit in range(10)]
    right.axis("on")
    right.bar(range(10), [100 * p for p in reading.probabilities], color=colours)
    right.set(xlabel="digit", ylabel="probability, %", xticks=range(10), ylim=(0, 100))
    return figure
