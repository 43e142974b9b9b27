"""What the benchmark found on every kind of processor, in tables; goals beside the figures."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import MODELS
from study.runs import recorded
from study.show.tables import markdown
from study.statistics import runs_meeting_brief
from study.store import STUDY

BAR = 99.0  # percent on the test set: a race with PyTorch's own example
RESULTS = Path(__file__).parent / "results"
WAYS = {
    "conventional_0": "conventional, 0 workers",
    "conventional_1": "conventional, 1 worker",
    "conventional_2": "conventional, 2 workers",
    "conventional_at_once": "conventional, one run a core, per run",
    "run": "ours, one run on all cores",
    "run_float32": "ours, one run in float32",
    "one_thread": "ours, one run, one thread",
    "sweep": "ours, one run a core, per run",
}
Figure = Callable[[dict], float | None]  # None: not measured


def load_all() -> list[dict]:
    """The stored results, one per kind of processor."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def conventional(rounds: dict[str, list[float]]) -> list[float]:
    """Seconds per epoch of the yardstick in each round: the best number of loader workers."""
    tried = [rounds[name] for name in WAYS if name in rounds and name[-2:] in ("_0", "_1", "_2")]
    return [min(values) for values in zip(*tried, strict=True)]


def ratios(rounds: dict[str, list[float]], way: str) -> list[float] | None:
    """Ours against the yardstick with the same chance, round by round; None if not measured."""
    usual = rounds.get("conventional_at_once") if way == "sweep" else conventional(rounds)
    if not usual or way not in rounds:
        return None
    return [ours / theirs for ours, theirs in zip(rounds[way], usual, strict=True)]


def _median_ratio(way: str) -> Figure:
    def figure(results: dict) -> float | None:
        found = ratios(results["models"]["9"]["rounds"], way)
        return statistics.median(found) if found else None

    return figure


def _highest(key: str) -> Figure:
    return lambda results: max(figures[key] for figures in results["models"].values())


@dataclass(frozen=True)
class Goal:
    """An upper limit on a figure of the results, by kind of processor or for all of them."""

    what: str
    limits: dict[str, float] | float
    figure: Figure
    form: str = "{:.2f}"

    def cell(self, results: dict) -> str:
        """The figure, its limit, and whether it is met."""
        limit = self.limits
        limit = limit.get(results["kind"]) if isinstance(limit, dict) else limit
        value = self.figure(results)
        if value is None:
            return "not measured"
        shown = self.form.format(value)
        if limit is None:
            return shown
        met = "met" if value <= limit else "**not met**"
        return f"{shown} (at most {self.form.format(limit)}: {met})"


GOALS = [
    Goal("model 9, one run: share of the conventional",
         {"AMX": 0.20, "AVX-512": 0.22, "AVX2": 0.30}, _median_ratio("run"), "{:.3f}"),
    Goal("model 9, one run a core: share of as many conventional ones",
         {"AMX": 0.15, "AVX-512": 0.20, "AVX2": 0.25}, _median_ratio("sweep"), "{:.3f}"),
    Goal("`make run`, minutes", 15, lambda r: r.get("make_run_minutes"), "{:.1f}"),
    Goal("peak memory of a run, MB", 1500, _highest("peak_mb"), "{:.0f}"),
    Goal("from the imports to the first step, seconds", 6, _highest("startup_s"), "{:.1f}"),
    Goal("the same with nothing compiled yet, seconds", 6,
         lambda r: r.get("startup_cold_s"), "{:.1f}"),
    Goal("a whole short run on all cores, seconds", 120,
         lambda r: r.get("short", {}).get("seconds"), "{:.0f}"),
]  # fmt: skip


def _names(found: list[dict]) -> list[str]:
    return [results["kind"] for results in found]


def goals_table(found: list[dict]) -> str:
    """Markdown: each goal on each kind of processor."""
    rows = [(goal.what, *(goal.cell(results) for results in found)) for goal in GOALS]
    return markdown(("figure", *_names(found)), rows)


def machines_table(found: list[dict]) -> str:
    """Markdown: where and when each kind was measured, and its limits."""
    rows = []
    for results in found:
        versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
        limits = ", ".join(f"{name} {value:,.0f}" for name, value in results["peaks"].items())
        machine = f"{results['cores']} cores, {results['processor']}"
        rows.append((results["kind"], results["date"], machine, limits, versions))
    return markdown(("kind", "date", "machine", "limits", "versions"), rows, left=5)


def epochs_table(found: list[dict]) -> str:
    """Markdown: seconds of a training epoch by processor and model, and the paired ratios."""
    rows = []
    for results in found:
        for model, figures in results["models"].items():
            rounds = figures["rounds"]
            rows.append(
                (
                    results["kind"],
                    model,
                    f"{statistics.median(conventional(rounds)):.1f}",
                    f"{statistics.median(rounds['run']):.1f}",
                    _span(ratios(rounds, "run")),
                    _seconds(rounds.get("conventional_at_once")),
                    f"{statistics.median(rounds['sweep']):.1f}",
                    _span(ratios(rounds, "sweep")),
                    _share_of_peak(results, model),
                )
            )
    columns = ("processor", "model", "conventional, s", "one run, s", "ratio",
               "conventional, one a core, s", "ours, one a core, s", "ratio",
               "share of matmul peak")  # fmt: skip
    return markdown(columns, rows)


def _seconds(values: list[float] | None) -> str:
    return f"{statistics.median(values):.1f}" if values else "not measured"


def _span(values: list[float] | None) -> str:
    if not values:
        return "not measured"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _share_of_peak(results: dict, model: str, of_the_time: float = 1.0) -> str:
    from benchmarks.epochs import EPOCH_IMAGES, training_macs

    operations = 2 * training_macs(MODELS[int(model)]) * EPOCH_IMAGES
    seconds = statistics.median(results["models"][model]["rounds"]["sweep"]) * of_the_time
    peak = results["peaks"][f"{results['precision']}_gflops"] * 1e9
    return f"{100 * operations / seconds / peak:.0f} %"


def bounds_text(found: list[dict]) -> str:
    """What bounds a step of ours: how much of it convolutions are, and how near to the limit."""
    lines = []
    for results in found:
        if "profile" in results:
            share = sum(v for kind, v in results["profile"].items() if "convolution" in kind)
            lines.append(
                f"- {results['kind']}: convolutions are {100 * share:.0f} % of a step of model 9, "
                f"and run at {_share_of_peak(results, '9', share)} of the matmul peak of all cores."
            )
    return "\n".join(lines) or "Not measured yet."


def rounds_table(found: list[dict]) -> str:
    """Markdown: median and extremes of every way, seconds of a training epoch of model 9."""
    rows = [
        (name, *(_span(results["models"]["9"]["rounds"].get(way)) for results in found))
        for way, name in WAYS.items()
    ]
    return markdown(("model 9", *_names(found)), rows)


def profile_table(found: list[dict]) -> str:
    """Markdown: where a step of model 9 spends one thread's time."""
    found = [results for results in found if "profile" in results]
    if not found:
        return "Not measured yet."
    kinds = list(found[0]["profile"])
    rows = [(kind, *(f"{100 * r['profile'][kind]:.0f} %" for r in found)) for kind in kinds]
    return markdown(("share of a step", *_names(found)), rows)


def race_text(found: list[dict]) -> str:
    """A whole run that may meet the brief, and the race with PyTorch's own example."""
    short = recorded(["9-short"], [STUDY])["9-short"]
    lines = [
        f"A run of the short recipe has {len(short[0].history)} epochs, and "
        f"{runs_meeting_brief(short)} of its {len(short)} recorded seeds meet the brief."
    ]
    for results in found:
        if "short" not in results:
            continue
        ours = results["short"]
        line = f"{results['kind']}: such a run takes {ours['seconds']:.0f} s on all cores."
        if ours.get("seconds_to_bar") and results.get("peer", {}).get("seconds_to_bar"):
            line += (
                f" It is at {BAR} % on the test set after {ours['seconds_to_bar']:.0f} s; "
                f"PyTorch's example after {results['peer']['seconds_to_bar']:.0f} s."
            )
        lines.append(line)
    return "\n".join(f"- {line}" for line in lines)


def scaling_table(found: list[dict]) -> str:
    """Markdown: four short runs on one worker and on two, start included."""
    rows = [
        (r["kind"], f"{r['scaling']['1']:.0f}", f"{r['scaling']['2']:.0f}",
         f"{r['scaling']['1'] / r['scaling']['2']:.2f}")
        for r in found if "scaling" in r
    ]  # fmt: skip
    return markdown(("processor", "1 worker, s", "2 workers, s", "speed-up"), rows)


def summary_table(found: list[dict]) -> str:
    """Markdown, for docs/running.md: model 9 on every kind of processor."""
    rows = [
        (
            results["kind"],
            f"{statistics.median(conventional(results['models']['9']['rounds'])):.1f}",
            f"{statistics.median(results['models']['9']['rounds']['run']):.1f}",
            *(_span(ratios(results["models"]["9"]["rounds"], way)) for way in ("run", "sweep")),
        )
        for results in found
    ]
    columns = ("processor", "conventional, s an epoch", "ours, s", "one run, ratio",
               "one run a core, ratio")  # fmt: skip
    return markdown(columns, rows)


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md and docs/running.md."""
    found = load_all()
    parts = {
        "machines": machines_table,
        "goals": goals_table,
        "epochs": epochs_table,
        "rounds": rounds_table,
        "profile": profile_table,
        "bounds": bounds_text,
        "race": race_text,
        "scaling": scaling_table,
        "speed": summary_table,
    }
    return {name: part(found) for name, part in parts.items()}
