"""Every figure: Okabe-Ito colours, white ground, axes with units, the message in the title.

Each function returns a figure; `show` displays it with alternative text and closes it.
"""

import math
import textwrap

import numpy
import torch
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from utils.analysis import (
    LAST_EPOCHS,
    PARAMETER_LIMIT,
    TARGET_ACCURACY,
    final_gap,
    final_test,
    runs_meeting_brief,
)
from utils.data import Split
from utils.recipes import Recipe
from utils.records import Record
from utils.training import learning_rate

# Okabe and Ito's palette, distinct in all common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "figure.dpi": 80,
    "font.size": 10,
}


def show(figure: Figure, alt: str) -> None:
    """Display a figure with alternative text, then close it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    pyplot.close(figure)


def _figure(rows: int, columns: int, size: tuple[float, float], title: str):
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, int(size[0] * 10.5))), x=0.01, ha="left")
    return figure, axes


def samples_per_class(train: Split, test: Split) -> Figure:
    """Bars: images of each digit in both halves."""
    counts = {
        "train": torch.bincount(train.labels, minlength=10),
        "test": torch.bincount(test.labels, minlength=10),
    }
    ratio = int(counts["train"].max()) / int(counts["train"].min())
    title = f"The classes are nearly balanced: the most frequent digit has {ratio:.2f} x the rarest"
    figure, axes = _figure(1, 1, (8, 3), title)
    for offset, (name, count), colour in zip(
        (-0.2, 0.2), counts.items(), (BLUE, ORANGE), strict=True
    ):
        axes.bar(numpy.arange(10) + offset, count.tolist(), 0.4, label=name, color=colour)
    axes.set(xlabel="digit", ylabel="images", xticks=range(10))
    axes.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.15))
    return figure


def images(pictures: list[Tensor], captions: list[str], title: str, columns: int = 10) -> Figure:
    """A grid of [28, 28] images, ink dark on white, with a caption above each."""
    rows = -(-len(pictures) // columns)
    side = 9.5 / columns  # inches
    figure, axes = _figure(rows, columns, (9.5, 1.2 * side * rows + 0.5), title)
    for axis in numpy.ravel(axes):
        axis.axis("off")
    for axis, picture, caption in zip(numpy.ravel(axes), pictures, captions, strict=False):
        axis.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=8, pad=2)
    return figure


def stroke_lengths(train: Split) -> Tensor:
    """Lengths in pixels of every horizontal run of ink (> half grey) in the images."""
    ink = torch.nn.functional.pad(train.images > 127, (1, 1)).to(torch.int8).flatten()
    edges = ink.diff()
    return (edges == -1).nonzero().squeeze(1) - (edges == 1).nonzero().squeeze(1)


def strokes(lengths: Tensor) -> Figure:
    """Histogram of stroke widths with the receptive fields of the first two convolutions."""
    inside = 100 * float((lengths <= 3).float().mean())
    title = (
        f"{inside:.0f} % of horizontal strokes are at most 3 pixels wide: a field of 5 sees such "
        "a stroke with both of its edges"
    )
    figure, axes = _figure(1, 1, (8, 3), title)
    share = 100 * torch.bincount(lengths, minlength=16)[:16] / len(lengths)
    axes.bar(range(16), share.tolist(), color=SKY)
    for field, colour in ((3, VERMILION), (5, BLUE)):
        axes.axvline(field + 0.5, color=colour, linestyle="--", label=f"receptive field {field}")
    axes.set(xlabel="width of a horizontal run of ink, pixels", ylabel="share of runs, %")
    axes.legend(frameon=False)
    return figure


def curves(runs: list[Record], name: str) -> Figure:
    """Loss (log scale) and accuracy over epochs, train and test; the first seed bold."""
    gap = final_gap(runs).mean
    side = "below" if gap > 0 else "above"
    title = (
        f"{name} ends at {final_test(runs)} on the test set, "
        f"{abs(gap):.2f} points {side} its running train accuracy"
    )
    figure, (loss_axes, accuracy_axes) = _figure(1, 2, (10, 3.8), title)
    for run in reversed(runs):
        epochs = [row.epoch for row in run.history]
        first = run is runs[0]
        style = {"linewidth": 2 if first else 0.8, "alpha": 1 if first else 0.6}
        for half, colour in (("train", ORANGE), ("test", BLUE)):
            label = f"{half}, seed {run.run.seed}" if first else None
            losses = [getattr(row, f"{half}_loss") for row in run.history]
            hits = [getattr(row, f"{half}_accuracy") for row in run.history]
            loss_axes.plot(epochs, losses, color=colour, label=label, **style)
            accuracy_axes.plot(epochs, hits, color=colour, **style)
    loss_axes.set(xlabel="epoch", ylabel="loss, nats", yscale="log")
    loss_axes.legend(frameon=False)
    _target_line(accuracy_axes)
    last = min(min(run.test_accuracy[-1], run.train_accuracy[-1]) for run in runs)
    bottom = min(97, math.floor(last))  # the first epochs may leave the picture, the last may not
    accuracy_axes.set(xlabel="epoch", ylabel="accuracy, %", ylim=(bottom, 100))
    return figure


def _target_line(axes) -> None:
    axes.axhline(TARGET_ACCURACY, color=BLACK, linestyle="--", linewidth=1)
    axes.annotate(
        f"the brief: {TARGET_ACCURACY} %",
        (0.01, TARGET_ACCURACY),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=9,
    )


def ladder(models: dict[str, list[Record]]) -> Figure:
    """Test accuracy in the last five epochs of every run, one column per experiment."""
    met = {name: runs_meeting_brief(runs) for name, runs in models.items()}
    title = f"{sum(met.values())} of {sum(map(len, models.values()))} runs meet the brief"
    if any(met.values()):
        best = max(models, key=lambda name: met[name] / len(models[name]))
        title += f"; most often {best}: {met[best]} of {len(models[best])}"
    else:
        best = max(models, key=lambda name: final_test(models[name]).mean)
        title += f"; the best mean is model {best}'s: {final_test(models[best])}"
    figure, axes = _figure(1, 1, (10, 4), title)
    for column, runs in enumerate(models.values()):
        if runs[0].parameters < PARAMETER_LIMIT:
            axes.axvspan(column - 0.5, column + 0.5, color=YELLOW, alpha=0.18, linewidth=0)
        for index, run in enumerate(runs):
            last = run.test_accuracy[-LAST_EPOCHS:]
            x = column + min(0.16, 0.7 / len(runs)) * (index - (len(runs) - 1) / 2)
            axes.plot([x] * len(last), last, color=SKY, linewidth=1, zorder=1)
            axes.scatter([x] * len(last), last, s=14, color=SKY, zorder=2)
            axes.scatter([x], last[-1:], s=26, color=BLUE, zorder=3)
        mean = final_test(runs).mean
        axes.hlines(mean, column - 0.35, column + 0.35, color=VERMILION, linewidth=2, zorder=4)
    _target_line(axes)
    names = [f"{name}\n{runs[0].parameters:,}" for name, runs in models.items()]
    axes.set_xticks(range(len(models)), names)
    axes.set(xlabel="model, and its parameters", ylabel="test accuracy, %")
    axes.scatter([], [], s=14, color=SKY, label="the last epochs of a run")
    axes.scatter([], [], s=26, color=BLUE, label="its final epoch")
    axes.plot([], [], color=VERMILION, linewidth=2, label="mean final epoch")
    small = f"fewer than {PARAMETER_LIMIT:,} parameters"
    axes.fill_between([], [], color=YELLOW, alpha=0.3, label=small)
    axes.set_xlim(-0.5, len(models) - 0.5)
    figure.legend(frameon=False, loc="outside lower right", ncols=4)
    return figure


def learning_rates(traces: dict[str, Record | Recipe]) -> Figure:
    """Learning rate over epochs, log scale: as a recipe has it, or as it was in a recorded run."""
    first = [_first_fall(trace) for trace in traces.values()]
    falling = [epoch for epoch in first if epoch is not None]
    title = "The learning rate never falls"
    if falling:
        when = f"{min(falling):g}" + (f" to {max(falling):g}" if len(set(falling)) > 1 else "")
        title = f"The learning rate first falls after epoch {when}"
        title += f"; in {first.count(None)} of {len(first)} never" if None in first else ""
    figure, axes = _figure(1, 1, (8, 3), title)
    colours = BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY
    for index, (name, trace) in enumerate(traces.items()):
        epochs, rates = _rates(trace)
        width = max(1.0, 3.5 - index / 2)  # wide lines first, so that none hides another
        colour = colours[index % len(colours)]
        axes.plot(epochs, rates, label=name, color=colour, lw=width, drawstyle="steps-post")
    axes.set(xlabel="epochs done", ylabel="learning rate", yscale="log")
    axes.legend(frameon=False)
    return figure


def _first_fall(trace: Record | Recipe) -> float | None:
    epochs, rates = _rates(trace)
    fallen = (epoch for epoch, rate in zip(epochs, rates, strict=True) if rate < rates[0])
    return next(fallen, None)


def _rates(trace: Record | Recipe, per_epoch: int = 100) -> tuple[list[float], list[float]]:
    """Epochs done and the learning rate from there on; the last rate is repeated at the end."""
    if isinstance(trace, Record):
        rates = [row.learning_rate for row in trace.history]
        return list(range(len(rates) + 1)), [*rates, rates[-1]]
    steps = range(trace.epochs * per_epoch)
    rates = [learning_rate(trace, step, per_epoch) for step in steps]
    return [step / per_epoch for step in (*steps, steps.stop)], [*rates, rates[-1]]


def confusion(matrix: list[list[int]]) -> Figure:
    """Mistakes per pair of digits; the diagonal, right answers, is left blank."""
    counts = numpy.array(matrix, dtype=float)
    numpy.fill_diagonal(counts, numpy.nan)
    true, predicted = numpy.unravel_index(numpy.nanargmax(counts), counts.shape)
    title = (
        f"{numpy.nansum(counts):.0f} mistakes in all; the most frequent one, "
        f"{numpy.nanmax(counts):.0f} times, takes a {true} for a {predicted}"
    )
    figure, axes = _figure(1, 1, (6, 5), title)
    axes.grid(False)
    picture = axes.imshow(counts, cmap="Blues", vmin=0)
    for true, predicted in zip(*numpy.nonzero(numpy.nan_to_num(counts)), strict=True):
        count = int(counts[true, predicted])
        colour = "white" if count > numpy.nanmax(counts) / 2 else "black"
        axes.text(predicted, true, count, ha="center", va="center", color=colour, fontsize=9)
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    figure.colorbar(picture, ax=axes, label="test images")
    return figure
