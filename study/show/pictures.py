"""Figures of images, and of what networks answer to them: warped, rotated, mistaken, foreign."""

import collections
import statistics
from collections.abc import Iterable, Sequence

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from study import robustness as measured
from study.digit import Reading
from study.published import DISPUTED
from study.records import Record
from study.robustness import BINS, CONDITIONS, IMAGES
from study.show.plots import display_name
from study.statistics import spread
from study.store import load_network
from utils.augmentation import apply_affine, rotation_angles, sample_affine
from utils.data import Split
from utils.evaluation import predict
from utils.figures import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, grid, sized
from utils.recipes import Recipe


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
    rows = max(1, -(-len(pictures) // columns))
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
        label = f"window of {field}: strokes up to {field - 2} px"
        axes.axvline(field - 1.5, color=colour, linestyle="--", label=label)
    axes.set(xlabel="width of a horizontal run of ink, pixels", ylabel="share of runs, %")
    axes.legend(frameon=False)
    return figure


def examples(labels: Tensor, digits: Iterable[int] = range(10)) -> Tensor:
    """Index of the first image of each digit; of the first at all, where data lack a digit."""
    return torch.stack([(labels == digit).int().argmax() for digit in digits])


def warped(originals: Tensor, recipe: Recipe, rows: int = 2) -> Figure:
    """Training images, and as many independent draws of a recipe's warps below. [N, 28, 28]."""
    generator = torch.Generator().manual_seed(0)
    pictures, captions = list(originals), ["original"] * len(originals)
    for _ in range(rows):
        matrices = sample_affine(recipe, len(originals), generator)
        pictures += list(apply_affine(originals.unsqueeze(1).float(), matrices).squeeze(1))
        captions += [f"{angle:+.1f}°" for angle in rotation_angles(matrices)]
    most = sum(recipe.rotations)
    title = f"Turned by up to {most:g} degrees the digits stay what they are"
    return images(pictures, captions, title, columns=len(originals))


def robustness(groups: dict[str, Sequence[Record]], condition: str) -> Figure:
    """Accuracy under a condition of `study.robustness`, the mean over seeds: {name: its runs}."""
    values = CONDITIONS[condition]
    unit = {"rotated": "degrees", "shifted": "pixels", "noise": "share of full ink"}[condition]
    means, counts = {}, {}
    for name, runs in groups.items():
        kept = [each.accuracy[condition] for each in measured.of(runs)]
        means[name] = [statistics.mean(each) for each in zip(*kept, strict=True)]
        counts[name] = len(kept)
    said = ", ".join(f"{display_name(name)} {ends[-2]:.0f} %" for name, ends in means.items())
    title = f"Accuracy on images {CAPTION[condition]}; at {values[-2]:g} {unit}: {said}"
    alt = f"Accuracy on the first {IMAGES:,} test images against the amount by which they change"
    figure, axes = sized(8, 3.6, title, alt)
    colours = BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY
    for name, colour, marker in zip(means, colours, "os^Dv*", strict=False):
        label = f"{display_name(name)} (n = {counts[name]})"
        axes.plot(values, means[name], color=colour, marker=marker, label=label)
    axes.set(xlabel=f"{AXIS[condition]}, {unit}", ylabel="test accuracy, %", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure


CAPTION = {"rotated": "rotated", "shifted": "shifted to the right and down", "noise": "under noise"}
AXIS = CAPTION | {"noise": "noise"}


def confusion(run: Record) -> Figure:
    """Mistakes of a run per pair of digits; the diagonal, right answers, is left blank."""
    counts = numpy.array(run.confusion, dtype=float)
    numpy.fill_diagonal(counts, numpy.nan)
    most, mistakes = int(numpy.nanmax(counts)), int(numpy.nansum(counts))
    worst = zip(*numpy.nonzero(counts == most), strict=True)
    pairs = " and ".join(f"a {true} taken for a {wrong}" for true, wrong in worst)
    title = f"{run.run.title}: {mistakes} mistakes"
    title += f"; the most frequent, {most} times: {pairs}" if most else ""
    figure, axes = sized(6.5, 5.4, title, "Mistakes by true and predicted digit")
    axes.grid(False)
    axes.imshow(counts, cmap="Blues", vmin=0)
    for true, predicted in zip(*numpy.nonzero(numpy.nan_to_num(counts)), strict=True):
        count = int(counts[true, predicted])
        colour = "white" if count > most / 2 else "black"
        axes.text(predicted, true, count, ha="center", va="center", color=colour, fontsize=11)
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    return figure


def shared_mistakes(runs: Sequence[Record], test: Split, most: float = 0.5) -> Figure:
    """The test images that more than a share `most` of the measured networks get wrong."""
    kept = measured.of(runs)
    missed = collections.Counter(index for each in kept for index in each.wrong)
    every = sorted((i for i, n in missed.items() if n > most * len(kept)), key=lambda i: -missed[i])
    disputed = sum(index in DISPUTED for index in every)
    title = (
        f"{len(every)} test images are missed by more than {most:.0%} of {len(kept)} networks "
        f"({disputed} of them of disputed label), {len(missed)} by at least one"
    )
    shown, labels = test.images[every], test.labels[every].tolist()
    kept_runs = [run for run in runs if run.weights_path.exists()]
    answers = [predict(load_network(r), shown, r.statistics).argmax(1).tolist() for r in kept_runs]
    captions = []
    for index, label, *read in zip(every, labels, *answers, strict=True):
        mistake = collections.Counter(digit for digit in read if digit != label).most_common(1)
        as_ = f" as {mistake[0][0]}" if mistake else ""
        star = "*" if index in DISPUTED else ""
        captions.append(f"{label}{star}{as_}, {missed[index] / len(kept):.0%}")
    return images(shown, captions, title, columns=7)


FEW = 20  # answers, below which a point says nothing


def calibration(runs: Sequence[Record]) -> Figure:
    """How often networks are right against how sure they are, over all measured seeds."""
    kept = measured.of(runs)
    bins = [map(sum, zip(*(each.bins[b] for each in kept), strict=True)) for b in range(BINS)]
    filled = [(total / n, right / n, n) for n, total, right in map(tuple, bins) if n]
    images_ = sum(n for *_, n in filled)
    error = 100 * sum(n * abs(sure - right) for sure, right, n in filled) / images_
    title = (
        f"{display_name(runs[0].run.name).capitalize()}, n = {len(kept)}: confidence and accuracy "
        f"are {error:.2f} points apart on average"
    )
    figure, axes = sized(6.5, 4, title, "Share of right answers against the probability given")
    sure, right, counts = zip(*(each for each in filled if each[2] >= FEW), strict=True)
    axes.plot([0, 100], [0, 100], color=SKY, linestyle="--", label="as sure as right")
    x, y = ([100 * value for value in values] for values in (sure, right))
    axes.plot(x, y, "o-", color=BLUE, label="the networks")
    for left, up, n in zip(x, y, counts, strict=True):
        axes.annotate(f"{n:,}", (left, up), (5, -12), textcoords="offset points", fontsize=9)
    axes.set(xlabel="probability of the answer, %", ylabel="right answers, %")
    axes.legend(frameon=False)
    return figure


def seed_spread(runs: Sequence[Record]) -> str:
    """The seeds' SD beside what chance image by image predicts, in a sentence.

    If image i is missed with probability p_i, independently of the others, then the number of
    mistakes has the variance sum of p_i (1 - p_i). Source: Jordan, 2023.
    """
    kept = measured.of(runs)
    if len(kept) < 3:
        return f"{runs[0].run.name}: {len(kept)} networks are kept; this takes 3 or more"
    total, n = sum(kept[0].bins[b][0] for b in range(BINS)), len(kept)
    missed = collections.Counter(index for each in kept for index in each.wrong)
    variance = sum(m / n * (1 - m / n) for m in missed.values()) * n / (n - 1)
    seen = statistics.stdev(100 * len(each.wrong) / total for each in kept)
    return (
        f"{runs[0].run.name}: the accuracy of {n} seeds has a standard deviation of {seen:.3f} "
        f"points; independent chance at every image would give {100 * variance**0.5 / total:.3f}"
    )


def out_of_distribution_digits(runs: Sequence[Record]) -> str:
    """How recorded networks read other people's digits: prepared as MNIST, and merely enlarged."""
    kept = measured.of(runs)
    prepared, plain = map(spread, zip(*(each.out_of_distribution for each in kept), strict=True))
    return (
        f"{runs[0].run.name}: {prepared} of the digits right when prepared as MNIST, "
        f"{plain.short()} when merely enlarged"
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
