"""Figures of records: curves, spreads, effects, and accuracy against size."""

import math
from collections.abc import Sequence
from itertools import accumulate
from textwrap import fill

from matplotlib.figure import Figure

from study.experiments import EXPERIMENTS, kind_of
from study.published import Public
from study.records import Record
from study.statistics import Interval, final_test, mean_interval, rate_drops, verdict
from study.thresholds import LAST_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY
from study.trials import Outcome
from utils import curves as learning
from utils.curves import target_line
from utils.data import CANONICAL_CHECKSUM
from utils.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW, panels, sized

# A colour and a marker for each experiment or series in one figure.
SERIES = tuple(zip((BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY), "os^Dv*", strict=True))
DOT = {"s": 30, "linewidths": 1.4, "zorder": 3}
PALE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
NOTE = {"textcoords": "offset points", "fontsize": 10, "bbox": PALE}
NEAR_SIZES, NEAR_ACCURACIES = (2_600, 11_000), (99.25, 99.75)  # of the frontier's enlarged part


def display_name(name: str) -> str:
    """A name of an experiment in words."""
    return f"model {name}" if kind_of(name) == "models" else name


def with_interval(axis, interval: Interval, at: float, colour: str, *, across: bool) -> None:
    """An estimate as a dot on the line of its interval, across (along x) or upright."""
    ends, place = [interval.low, interval.high], [at, at]
    axis.plot(*((ends, place) if across else (place, ends)), color=colour, linewidth=2)
    axis.scatter(*((interval.value, at) if across else (at, interval.value)), color=colour, **DOT)


def curves(runs: list[Record], before: list[Record] = ()) -> Figure:
    """Loss and accuracy over epochs: each seed thin, their mean thick, the predecessor's grey."""
    name = display_name(runs[0].run.name).capitalize()
    title, label = f"{name} ends at {final_test(runs)} on the test set", ""
    if before:
        label = display_name(before[0].run.name)
        apart = final_test(runs).mean - final_test(before).mean
        title += f", {round(apart, 2) + 0:+.2f} points against {label}"  # no -0.00
    histories, old = ([run.history for run in group] for group in (runs, before))
    return learning.curves(histories, title, old, f"{label}, test", TARGET_ACCURACY)


def tried(run: Record, recorded: list[Record]) -> Figure:
    """A user's run over the range of the recorded seeds, epoch by epoch."""
    title, label = position_in_band(run, recorded), "your run"
    if any(run.key == other.key for other in recorded):
        title = f"Nothing changed yet: {display_name(run.run.name)}, seed {run.run.seed}, "
        title, label = title + "as recorded", run.run.title
    alt = "Test accuracy over the epochs: one run, and recorded ones"
    figure, axes = sized(8, 3.4, title, alt)
    epochs = list(zip(*(other.test_accuracy for other in recorded), strict=True))
    lows, highs = list(map(min, epochs)), list(map(max, epochs))
    band = f"the {len(recorded)} recorded seeds"
    axes.fill_between(range(1, len(lows) + 1), lows, highs, label=band, color=SKY, alpha=0.4, lw=0)
    own = run.test_accuracy
    axes.plot(range(1, len(own) + 1), own, "o-", color=VERMILION, label=label)
    target_line(axes, TARGET_ACCURACY)
    bottom = math.floor(min([*own, *lows[: len(own)]]))  # the axes fit the run
    axes.set(xlabel="epoch", xlim=(0.8, len(own) + 0.2), xticks=range(1, len(own) + 1))
    axes.set(ylabel="test accuracy, %", ylim=(bottom, 100))
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def position_in_band(run: Record, recorded: list[Record]) -> str:
    """Whether a run's last epoch lies within the recorded seeds at that epoch, in a sentence."""
    epoch, end = len(run.history), run.test_accuracy[-1]
    there = [r.test_accuracy[epoch - 1] for r in recorded if len(r.history) >= epoch]
    if not there:
        return f"Your run ends at {end:.2f} % after epoch {epoch}, which no recorded run reaches"
    low, high = min(there), max(there)
    side = "within" if low <= end <= high else "above" if end > high else "below"
    seeds = f"the {len(there)} recorded seeds ({low:.2f} to {high:.2f} %)"
    return f"After epoch {epoch} your run is at {end:.2f} %, {side} {seeds}"


def ladder(models: dict[str, list[Record]]) -> Figure:
    """Test accuracy in the last five epochs of every run, one column per experiment."""
    met = {name: sum(verdict(run).met for run in runs) for name, runs in models.items()}
    title = f"{sum(met.values())} of {sum(map(len, models.values()))} runs shown meet the brief"
    if any(met.values()):
        every = sum(count == len(models[name]) for name, count in met.items())
        title += f"; {every} of {len(met)} experiments meet it with every run"
    alt = "Test accuracy in the last five epochs of every run, by experiment, "
    many = len(models) > 9  # then their names stand askew, in one line
    height = 5 if many else 4.2
    figure, axes = sized(8, height, title, alt + f"against {TARGET_ACCURACY} %")
    sizes = {runs[0].parameters < PARAMETER_LIMIT for runs in models.values()}
    for column, runs in enumerate(models.values()):
        if len(sizes) > 1 and runs[0].parameters < PARAMETER_LIMIT:
            axes.axvspan(column - 0.5, column + 0.5, color=YELLOW, alpha=0.18, linewidth=0)
        for index, run in enumerate(runs):
            last = run.test_accuracy[-LAST_EPOCHS:]
            x = column + min(0.16, 0.7 / len(runs)) * (index - (len(runs) - 1) / 2)
            (epochs,) = axes.plot([x] * len(last), last, "o-", color=SKY, lw=1, ms=3, zorder=1)
            face = BLUE if verdict(run).met else "white"
            axes.scatter([x], last[-1:], s=16, facecolor=face, edgecolor=BLUE, zorder=3)
        final = axes.scatter([], [], s=16, color=BLUE)
        ends, style = (column - 0.35, column + 0.35), {"color": VERMILION, "lw": 2, "zorder": 4}
        mean = axes.hlines(final_test(runs).mean, *ends, **style)
    target_line(axes, TARGET_ACCURACY)
    names = [
        f"{name if many else fill(name, 12)}\n{runs[0].parameters:,}"
        for name, runs in models.items()
    ]
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if many else {}
    axes.set_xticks(range(len(models)), names, fontsize=9, **style)
    axes.set(xlabel="experiment, and its parameters", ylabel="test accuracy, %")
    axes.set_xlim(-0.5, len(models) - 0.5)
    small = axes.fill_between([], [], color=YELLOW, alpha=0.3)
    words = "a run's last epochs", "its final epoch; filled: meets the brief", "mean final epoch"
    words += (f"fewer than {PARAMETER_LIMIT:,} parameters",)
    handles = [epochs, final, mean, small][: 2 + len(sizes)]
    figure.legend(handles, words, frameon=False, loc="outside lower center", ncols=2)
    return figure


def drops(groups: dict[str, list[Record]]) -> Figure:
    """Final accuracy against the epoch at which a run's schedule first lowered the rate.

    Runs that meet the brief are filled.
    """
    every = [run for runs in groups.values() for run in runs]
    when = [epochs[0] for epochs in map(rate_drops, every) if epochs]
    last = max(len(run.history) for run in every)
    span = f"{min(when, default=0)} to {max(when, default=0)}"
    title = f"The rate first falls after epoch {span}" + " or never" * (len(when) < len(every))
    alt = "Final test accuracy of each run against the epoch of its first drop"
    figure, axes = sized(8, 3.6, title, alt)
    for index, (name, runs) in enumerate(groups.items()):
        colour, marker = SERIES[index]
        epochs = [(*rate_drops(run), last + 1)[0] + 0.25 * index for run in runs]
        faces = [colour if verdict(run).met else "white" for run in runs]
        style = {"edgecolors": colour, "marker": marker} | DOT
        axes.scatter(epochs, [run.test_accuracy[-1] for run in runs], facecolors=faces, **style)
        axes.scatter([], [], facecolors="white", label=display_name(name), **style)
    axes.scatter([], [], color="black", label="filled: meets the brief", **DOT)
    target_line(axes, TARGET_ACCURACY)
    ticks = range(2, last, 2)
    axes.set_xticks([*ticks, last + 1], [*map(str, ticks), "never"])
    axes.set(xlabel="epoch after which the rate first falls", ylabel="final test accuracy, %")
    axes.legend(frameon=False, loc="lower left")
    return figure


def forest(effects: dict[str, tuple[Interval, int]]) -> Figure:
    """The effect of each idea: {idea: (points with their 95 % interval, seeds)}."""
    clear = sum(effect.clear for effect, _ in effects.values())
    title = f"Effects on the test accuracy: {clear} of {len(effects)} are clear of zero"
    alt = "Effect of each change on the final test accuracy, with its interval"
    figure, axes = sized(8, 0.36 * len(effects) + 1.2, title, alt)
    for row, (effect, _) in enumerate(effects.values()):
        colour = (BLUE if effect.value > 0 else VERMILION) if effect.clear else GREY
        with_interval(axes, effect, row, colour, across=True)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(effects)), [f"{idea} (n = {n})" for idea, (_, n) in effects.items()])
    axes.invert_yaxis()
    words = "points of test accuracy (blue: gain, orange: loss, grey: not clear of zero)"
    axes.set_xlabel(words, loc="right")
    return figure


def frontier(
    ours: dict[str, list[Record]], public: Sequence[Public], tried: Sequence[Outcome]
) -> Figure:
    """Accuracy against parameters: our means with intervals, and, on MNIST, public single runs.

    Above all of them, below those near the brief, enlarged, with the best of the trials.
    """
    ours = {name: runs for name, runs in ours.items() if len(runs) > 1}
    if any(run.data_checksum != CANONICAL_CHECKSUM for runs in ours.values() for run in runs):
        public = tried = ()
    means = {name: final_test(runs).mean for name, runs in ours.items()}
    best, *_ = order = sorted(means, key=means.get, reverse=True)
    title = f"the highest mean is that of {display_name(best)}, {final_test(ours[best])}"
    reliable = [runs for runs in ours.values() if all(verdict(run).met for run in runs)]
    if reliable:
        least = min(reliable, key=lambda runs: runs[0].parameters)
        met = f"{least[0].parameters:,} parameters met the brief in all {len(least)} runs"
        title = f"{met}; {title}"
    alt = "Test accuracy against the number of parameters, ours and public ones, and a part larger"
    figure, ((whole,), (part,)) = panels(2, 1, (8, 7.8), title[0].upper() + title[1:], alt)
    for axis, thousands in ((whole, (2, 5, 10, 20, 50)), (part, (3, 4, 5, 6, 8, 10))):
        axis.set(xlabel="parameters", ylabel="accuracy, %", xscale="log")
        axis.set_xticks([1_000 * tick for tick in thousands], [f"{tick},000" for tick in thousands])
        axis.minorticks_off()
        target_line(axis, TARGET_ACCURACY)
    whole.set(xlim=(1_500, 110_000))
    part.set(xlim=NEAR_SIZES, ylim=NEAR_ACCURACIES, title="the upper part, enlarged")
    near = [name for name in order if means[name] > NEAR_ACCURACIES[0]]
    for index, (name, runs) in enumerate(ours.items()):
        interval, size = mean_interval(final_test(runs)), runs[0].parameters
        place = (size, interval.value)
        beside = [other for other in near if abs(ours[other][0].parameters / size - 1) < 0.05]
        for axis in (whole, part) if name in near else (whole,):
            with_interval(axis, interval, size, BLUE, across=False)
        if name not in near:  # neighbours have their names below and above
            whole.annotate(name, place, (6, 2 if index % 2 else -12), **NOTE)
        elif len(beside) > 1:  # of about one size: on both sides in turn, the highest to the right
            side, end = ((6, "left"), (-6, "right"))[beside.index(name) % 2]
            part.annotate(name, place, (side, -4), ha=end, **NOTE)
        else:
            part.annotate(name, (size, interval.high), (0, 4), ha="center", **NOTE)
    label = "ours, on the test set: mean of the final epoch, 95 % interval"
    whole.scatter([], [], color=BLUE, label=label)
    curves = ("before Muon", SKY, 5, "muon"), ("with Muon, too", GREEN, 1.5, "")
    for words, colour, width, out in curves if tried else ():
        kept = [each for each in tried if EXPERIMENTS[each.name].recipe.optimizer != out]
        across, scores = zip(*sorted((each.parameters, each.score) for each in kept), strict=True)
        label = f"best trial up to a size, {words}: held-out accuracy, mean of the last epochs"
        style = {"color": colour, "linewidth": width, "zorder": 1, "label": label}
        part.step(across, list(accumulate(scores, max)), where="post", **style)
    for letter, p in zip("abcdefgh", public, strict=False):
        label = f"{letter}: {p.source}, one run, {p.parameters:,} parameters, {p.epochs} epochs"
        for axis, text in ((whole, label), (part, None)):
            axis.scatter([p.parameters], [p.last], marker="^", color=VERMILION, s=30, label=text)
        axis = part if p.last > NEAR_ACCURACIES[0] else whole
        axis.annotate(letter, (p.parameters, p.last), (6, -5), textcoords="offset points")
    figure.legend(frameon=False, loc="outside lower center", fontsize=10)
    return figure
