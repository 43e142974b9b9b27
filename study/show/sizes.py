"""Figures of accuracy against size: searches, and the frontier."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from study.experiments import EXPERIMENTS
from study.published import Public
from study.records import Record
from study.show.plots import display_name
from study.statistics import final_test, mean_interval
from study.thresholds import LOWEST_OF_A_FINAL, MAX_EPOCHS, TARGET_ACCURACY
from study.trials import Outcome
from utils.curves import target_line
from utils.data import CANONICAL_CHECKSUM
from utils.figures import BLACK, BLUE, VERMILION, grid, sized

FLOOR = LOWEST_OF_A_FINAL - 0.6  # percent; a trial that ends lower is drawn there, with its figure


def searched(found: Sequence[Outcome]) -> Figure:
    """Every trial by size and by the lowest accuracy of its last five epochs, against the rule.

    Named are the smallest that the rule lets through, and the best; short trials are left out.
    """
    found = [each for each in found if EXPERIMENTS[each.name].recipe.epochs == MAX_EPOCHS]
    through = [each for each in found if each.lowest >= LOWEST_OF_A_FINAL]
    title = f"{len(through)} of {len(found)} trials reach what a final needs"
    named = {}
    if through:
        smallest = min(through, key=lambda each: (each.parameters, -each.lowest))
        named = {smallest: "the smallest", max(found, key=lambda each: each.score): "the best"}
        title += f", from {smallest.parameters:,} parameters on"
    alt = "Lowest held-out accuracy of the last five epochs of each trial against its parameters"
    figure, axes = sized(8, 4, title, alt)
    for each in found:
        height = max(each.lowest, FLOOR)
        place, face = (each.parameters, height), BLUE if each in through else "white"
        if height > each.lowest:
            words = f"{each.name.partition('-trial-')[2]}: {each.lowest:.2f}"
            axes.annotate(words, place, (8, -4), textcoords="offset points", fontsize=10)
        marker = "v" if height > each.lowest else "o"
        axes.scatter(
            *place, s=45, marker=marker, facecolors=face, edgecolors=BLUE, linewidths=1.5, zorder=3
        )
        if each in named:
            words = f"{named[each]}: {each.name.partition('-trial-')[2]}"
            axes.annotate(
                words, place, (-8, 7), ha="right", textcoords="offset points", fontsize=10
            )
    needed = f"what a final needs: {LOWEST_OF_A_FINAL} %"
    axes.axhline(LOWEST_OF_A_FINAL, color=BLACK, linestyle="--", linewidth=1, label=needed)
    label = "lowest of the last five,\nheld-out images, %"
    axes.set(xlabel="parameters", ylabel=label, ylim=(FLOOR - 0.04, None))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False, loc="lower right")
    return figure


def frontier(ours: dict[str, list[Record]], public: Sequence[Public]) -> Figure:
    """Accuracy against parameters: our means with intervals, and, on MNIST, public single runs.

    Above all of them, below those near the brief, larger.
    """
    ours = {name: runs for name, runs in ours.items() if len(runs) > 1}
    if any(run.data_checksum != CANONICAL_CHECKSUM for runs in ours.values() for run in runs):
        public = ()
    best = max(ours, key=lambda name: final_test(ours[name]).mean)
    title = f"Accuracy by size; the best of ours is {display_name(best)}, {final_test(ours[best])}"
    alt = "Test accuracy against the number of parameters, ours and public ones, and a part larger"
    figure, axes = grid(2, 1, (8, 7.8), title, alt)
    (whole,), (part,) = axes
    for axis, ticks in (
        (whole, [2_000, 5_000, 10_000, 20_000, 50_000]),
        (part, [2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000]),
    ):
        axis.axis("on")
        axis.set(xlabel="parameters", ylabel="test accuracy, %", xscale="log")
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        target_line(axis, TARGET_ACCURACY)
    whole.set(xlim=(1_500, 110_000))
    part.set(xlim=NEAR_SIZES, ylim=NEAR_ACCURACIES)
    named: set[int] = set()
    for name, runs in ours.items():
        interval, x = mean_interval(final_test(runs)), runs[0].parameters
        label = "ours: mean of the final epoch, 95 % interval" if name == best else None
        for axis in (whole, part):
            axis.plot([x, x], [interval.low, interval.high], color=BLUE, linewidth=2)
            style = {"color": BLUE, "s": 30, "label": label if axis is whole else None}
            axis.scatter([x], [interval.value], zorder=3, **style)
        place = {"textcoords": "offset points", "fontsize": 10}
        if _near(x, interval.value):  # the second of one size has its name to the right
            side = {"ha": "left"} if x in named else {"ha": "right"}
            part.annotate(name, (x, interval.value), (6 if x in named else -6, -4), **side, **place)
            named.add(x)
        else:  # neighbours of one size have numbers next to each other
            up = -12 if name[-1] in "13579" else 2
            whole.annotate(name, (x, interval.value), (6, up), **place)
    for letter, p in zip("abcdefgh", public, strict=False):
        label = f"public, one run: {letter}, {p.source}, {p.epochs} epochs"
        for axis in (whole, part):
            style = {"color": VERMILION, "s": 30, "label": label if axis is whole else None}
            axis.scatter([p.parameters], [p.last], marker="^", **style)
        axis = part if _near(p.parameters, p.last) else whole
        axis.annotate(letter, (p.parameters, p.last), (-3, -14), textcoords="offset points")
    figure.legend(frameon=False, loc="outside lower center", fontsize=10)
    return figure


NEAR_SIZES, NEAR_ACCURACIES = (1_500, 10_500), (99.25, 99.75)  # of the larger part


def _near(parameters: int, accuracy: float) -> bool:
    return (
        NEAR_SIZES[0] < parameters < NEAR_SIZES[1]
        and NEAR_ACCURACIES[0] < accuracy < NEAR_ACCURACIES[1]
    )
