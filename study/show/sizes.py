"""Figures of accuracy against size: searches, and the frontier."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from study.published import Public
from study.records import Record
from study.show.plots import display_name, with_interval
from study.statistics import final_test, mean_interval
from study.thresholds import TARGET_ACCURACY
from utils.curves import target_line
from utils.data import CANONICAL_CHECKSUM
from utils.figures import BLUE, VERMILION, panels

NOTE = {"textcoords": "offset points", "fontsize": 10}
NEAR_SIZES, NEAR_ACCURACIES = (1_500, 10_500), (99.25, 99.75)  # of the frontier's enlarged part


def frontier(ours: dict[str, list[Record]], public: Sequence[Public]) -> Figure:
    """Accuracy against parameters: our means with intervals, and, on MNIST, public single runs.

    Above all of them, below those near the brief, enlarged.
    """
    ours = {name: runs for name, runs in ours.items() if len(runs) > 1}
    if any(run.data_checksum != CANONICAL_CHECKSUM for runs in ours.values() for run in runs):
        public = ()
    best = max(ours, key=lambda name: final_test(ours[name]).mean)
    title = f"Accuracy by size; the best of ours is {display_name(best)}, {final_test(ours[best])}"
    title += "; below, the upper part enlarged"
    alt = "Test accuracy against the number of parameters, ours and public ones, and a part larger"
    figure, ((whole,), (part,)) = panels(2, 1, (8, 7.8), title, alt)
    for axis, thousands in ((whole, (2, 5, 10, 20, 50)), (part, (2, 3, 4, 5, 6, 8, 10))):
        axis.set(xlabel="parameters", ylabel="test accuracy, %", xscale="log")
        axis.set_xticks([1_000 * tick for tick in thousands], [f"{tick},000" for tick in thousands])
        axis.minorticks_off()
        target_line(axis, TARGET_ACCURACY)
    whole.set(xlim=(1_500, 110_000))
    part.set(xlim=NEAR_SIZES, ylim=NEAR_ACCURACIES)
    sizes = [runs[0].parameters for runs in ours.values()]
    for index, (name, runs) in enumerate(ours.items()):
        interval, size = mean_interval(final_test(runs)), runs[0].parameters
        place = (size, interval.value)
        for axis in (whole, part) if _near(*place) else (whole,):
            with_interval(axis, interval, size, BLUE, across=False)
        if not _near(*place):  # neighbours have their names below and above
            whole.annotate(name, place, (6, 2 if index % 2 else -12), **NOTE)
        elif name[0].isdigit() or sizes.count(size) > 1:  # of one size: on both sides in turn
            side = -1 if name[0].isdigit() or index % 2 == 0 else 1
            part.annotate(name, place, (6 * side, -4), ha="right" if side < 0 else "left", **NOTE)
        else:
            part.annotate(name, (size, interval.high), (0, 4), ha="center", **NOTE)
    whole.scatter([], [], color=BLUE, label="ours: mean of the final epoch, 95 % interval")
    for letter, p in zip("abcdefgh", public, strict=False):
        label = f"public, one run: {letter}, {p.source}, {p.parameters:,}, {p.epochs} epochs"
        for axis, text in ((whole, label), (part, None)):
            axis.scatter([p.parameters], [p.last], marker="^", color=VERMILION, s=30, label=text)
        axis = part if _near(p.parameters, p.last) else whole
        axis.annotate(letter, (p.parameters, p.last), (6, -5), textcoords="offset points")
    figure.legend(frameon=False, loc="outside lower center", fontsize=10)
    return figure


def _near(parameters: int, accuracy: float) -> bool:
    """Whether a network is within the enlarged part."""
    (least, most), (low, high) = NEAR_SIZES, NEAR_ACCURACIES
    return least < parameters < most and low < accuracy < high
