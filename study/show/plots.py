"""Figures of records: curves, spreads, effects."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from study.experiments import kind_of
from study.records import Record
from study.statistics import (
    Interval,
    final_test,
    rate_drops,
    runs_meeting_brief,
    verdict,
)
from study.thresholds import LAST_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY
from utils.curves import curves as draw_curves
from utils.curves import target_line
from utils.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    YELLOW,
    sized,
)


def curves(runs: list[Record], before: list[Record] = ()) -> Figure:
    """Loss and accuracy over epochs: each seed thin, their mean thick, the predecessor's grey."""
    title = (
        f"{display_name(runs[0].run.name).capitalize()} ends at {final_test(runs)} on the test set"
    )
    label = ""
    if before:
        label = display_name(before[0].run.name)
        apart = final_test(runs).mean - final_test(before).mean
        title += f", {apart:+.2f} points against {label}"
    histories, old = ([run.history for run in group] for group in (runs, before))
    return draw_curves(
        histories, title, before=old, before_label=f"{label}, test", target=TARGET_ACCURACY
    )


def display_name(name: str) -> str:
    """A name of an experiment in words."""
    return f"model {name}" if kind_of(name) == "models" else name


def _epochs(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def tried(run: Record, recorded: list[Record]) -> Figure:
    """A run of one's own over the spread of the recorded seeds, epoch by epoch."""
    same = any(run.key == other.key for other in recorded)
    title = position(run, recorded)
    if same:
        title = (
            f"Nothing changed yet: {display_name(run.run.name)}, seed {run.run.seed}, as recorded"
        )
    alt = "Test accuracy over the epochs: one run, and recorded ones"
    figure, axes = sized(8, 3.4, title, alt)
    rows = list(zip(*(other.test_accuracy for other in recorded), strict=True))
    lows, highs = zip(*((min(row), max(row)) for row in rows), strict=True)
    label = f"the {len(recorded)} recorded seeds"
    axes.fill_between(_epochs(rows), lows, highs, color=SKY, alpha=0.4, label=label, linewidth=0)
    own = run.test_accuracy
    axes.plot(
        _epochs(own),
        own,
        "o-",
        color=VERMILION,
        label=run.run.title if same else "your run",
    )
    target_line(axes, TARGET_ACCURACY)
    there = lows[min(len(own), len(lows)) - 1]  # what the title speaks of stays in view
    bottom = min(95, math.floor(min(own[-1], there)))
    axes.set(xlabel="epoch", ylabel=f"test accuracy, % (from {bottom} on)", ylim=(bottom, 100))
    axes.legend(frameon=False, loc="lower right")
    return figure


def position(run: Record, recorded: list[Record]) -> str:
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
    met = {name: runs_meeting_brief(runs) for name, runs in models.items()}
    title = f"{sum(met.values())} of {sum(map(len, models.values()))} runs meet the brief"
    if any(met.values()):
        shares = {name: met[name] / len(models[name]) for name in models}
        best = [name for name in models if shares[name] == max(shares.values())]
        often = " and ".join(f"{name}, {met[name]} of {len(models[name])}" for name in best)
        title += f"; most often {often}"
    alt = (
        "Test accuracy in the last five epochs of every run, by experiment, "
        f"against {TARGET_ACCURACY} %"
    )
    figure, axes = sized(8, 4.2, title, alt)
    for column, runs in enumerate(models.values()):
        if runs[0].parameters < PARAMETER_LIMIT:
            axes.axvspan(column - 0.5, column + 0.5, color=YELLOW, alpha=0.18, linewidth=0)
        for index, run in enumerate(runs):
            last = run.test_accuracy[-LAST_EPOCHS:]
            x = column + min(0.16, 0.7 / len(runs)) * (index - (len(runs) - 1) / 2)
            axes.plot([x] * len(last), last, color=SKY, linewidth=1, zorder=1)
            axes.scatter([x] * len(last), last, s=8, color=SKY, zorder=2)
            axes.scatter([x], last[-1:], s=16, color=BLUE, zorder=3)
        mean = final_test(runs).mean
        axes.hlines(mean, column - 0.35, column + 0.35, color=VERMILION, linewidth=2, zorder=4)
    target_line(axes, TARGET_ACCURACY)
    names = [f"{name}\n{runs[0].parameters:,}" for name, runs in models.items()]
    axes.set_xticks(range(len(models)), names, fontsize=9, rotation=45 if len(models) > 9 else 0)
    axes.set(xlabel="experiment, and its parameters", ylabel="test accuracy, %")
    axes.scatter([], [], s=8, color=SKY, label="the last epochs of a run")
    axes.scatter([], [], s=16, color=BLUE, label="its final epoch")
    axes.plot([], [], color=VERMILION, linewidth=2, label="mean final epoch")
    small = f"fewer than {PARAMETER_LIMIT:,} parameters"
    axes.fill_between([], [], color=YELLOW, alpha=0.3, label=small)
    axes.set_xlim(-0.5, len(models) - 0.5)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def drops(groups: dict[str, list[Record]]) -> Figure:
    """Final accuracy against the epoch at which a run's schedule first lowered the rate.

    Runs that meet the brief are filled.
    """
    found = [rate_drops(run) for runs in groups.values() for run in runs]
    when = [epochs[0] for epochs in found if epochs]
    never = len(found) - len(when)
    title = "The rate never falls"
    if when:
        title = f"The rate first falls after epoch {min(when)} to {max(when)}, by the seed's luck"
        title += f"; in {never} of {len(found)} runs never" if never else ""
    alt = "Final test accuracy of each run against the epoch of its first drop"
    figure, axes = sized(8, 3.6, title, alt)
    last = max(len(run.history) for runs in groups.values() for run in runs)
    for (name, runs), colour, marker in zip(
        groups.items(), (BLUE, ORANGE, GREEN), "o^s", strict=False
    ):
        epochs = [(*rate_drops(run), last + 1)[0] for run in runs]
        ends = [run.test_accuracy[-1] for run in runs]
        faces = [colour if verdict(run).met else "white" for run in runs]
        style = {"edgecolors": colour, "marker": marker, "s": 40, "linewidths": 1.5}
        axes.scatter(epochs, ends, facecolors=faces, **style)
        axes.scatter([], [], facecolors="white", label=display_name(name), **style)
    axes.scatter([], [], color=BLACK, s=40, label="filled: meets the brief")
    target_line(axes, TARGET_ACCURACY)
    ticks = list(range(2, last, 2))
    axes.set_xticks([*ticks, last + 1], [*map(str, ticks), "never"])
    axes.set(xlabel="epoch after which the rate first falls", ylabel="final test accuracy, %")
    axes.legend(frameon=False, loc="lower left")
    return figure


def every_run(groups: dict[str, list[Record]]) -> Figure:
    """Each run's lowest accuracy of its last five epochs, runs of equal ones above each other."""
    verdicts = {name: [verdict(run) for run in runs] for name, runs in groups.items()}
    met = sum(each.met for found in verdicts.values() for each in found)
    total = sum(map(len, groups.values()))
    title = f"The worst of a run's last five epochs: {met} of {total} runs meet the brief"
    alt = "The lowest of the last five test accuracies of every run, a row of dots an experiment"
    figure, axes = sized(8, 0.7 * len(groups) + 1.4, title, alt)
    for row, found in enumerate(verdicts.values()):
        heaps: dict[float, int] = {}
        for each in sorted(found, key=lambda each: each.worst_of_last):
            heaps[each.worst_of_last] = height = heaps.get(each.worst_of_last, -1) + 1
            face = BLUE if each.met else "white"
            style = {"s": 30, "edgecolors": BLUE, "linewidths": 1.2, "zorder": 3}
            axes.scatter(each.worst_of_last, row - 0.16 * height, facecolors=face, **style)
    names = [f"{name} (n = {len(runs)})" for name, runs in groups.items()]
    axes.set_yticks(range(len(groups)), names)
    axes.invert_yaxis()
    axes.axvline(TARGET_ACCURACY, color=BLACK, linestyle="--", linewidth=1, label="the brief")
    axes.set(xlabel="lowest test accuracy of the last five epochs, % (filled: meets the brief)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def forest(effects: dict[str, tuple[Interval, int]]) -> Figure:
    """What each idea was worth: {idea: (effect in points with its 95 % interval, n)}."""
    clear = sum(effect.clear for effect, _ in effects.values())
    title = (
        f"What each change did to the test accuracy: {clear} of {len(effects)} are clear of zero"
    )
    alt = "Effect of each change on the final test accuracy, with its interval"
    figure, axes = sized(8, 0.36 * len(effects) + 1.2, title, alt)
    for row, (effect, _) in enumerate(effects.values()):
        colour = (BLUE if effect.value > 0 else VERMILION) if effect.clear else GREY
        axes.plot([effect.low, effect.high], [row, row], color=colour, linewidth=2)
        axes.scatter([effect.value], [row], color=colour, s=30, zorder=3)
    axes.axvline(0, color=BLACK, linewidth=1)
    names = [f"{idea} (n = {n})" for idea, (_, n) in effects.items()]
    axes.set_yticks(range(len(effects)), names)
    axes.invert_yaxis()
    words = "points of test accuracy (blue: gain, red: loss, grey: not clear of zero)"
    axes.set_xlabel(words, loc="right")
    return figure
