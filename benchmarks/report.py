"""Tables of the stored measurements on every kind of processor, with the goals."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from study.runs import recorded
from study.show.tables import markdown
from study.statistics import runs_meeting_brief
from study.store import STUDY

BAR = 99.0  # percent on the test set: a race with PyTorch's own example
RESULTS = Path(__file__).parent / "results"
WAYS = {
    "conventional, 0 workers": "conventional_0",
    "conventional, 1 worker": "conventional_1",
    "conventional, 2 workers": "conventional_2",
    "conventional, one run a core, per run": "conventional_at_once",
    "ours, one run on all cores": "run",
    "ours, one run in float32": "run_float32",
    "ours, one run, one thread": "one_thread",
    "ours, one run a core, per run": "sweep",
}
MISSING = "not measured"


def load_all() -> list[dict]:
    """The stored results, one per kind of processor."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def conventional(rounds: dict[str, list[float]]) -> list[float]:
    """Seconds per epoch of the yardstick in each round: the best number of loader workers."""
    tried = [rounds[f"conventional_{n}"] for n in range(3) if f"conventional_{n}" in rounds]
    return [min(values) for values in zip(*tried, strict=True)]


def ratios(rounds: dict[str, list[float]], way: str) -> list[float] | None:
    """Ours divided by the yardstick, round by round; None if one was not measured."""
    # A sweep's yardstick is as many conventional runs at once.
    usual = rounds.get("conventional_at_once") if way == "sweep" else conventional(rounds)
    if not usual or way not in rounds:
        return None
    return [ours / theirs for ours, theirs in zip(rounds[way], usual, strict=True)]


def _median_ratio(results: dict, way: str) -> float | None:
    found = ratios(results["models"]["9"]["rounds"], way)
    return statistics.median(found) if found else None


def _separable_share(results: dict) -> float | None:
    """An epoch of best-final in epochs of model 9, both one run a core."""
    if "best-final" not in results["models"]:
        return None
    ours, other = (results["models"][name]["rounds"]["sweep"] for name in ("best-final", "9"))
    return statistics.median(ours) / statistics.median(other)


def _highest(results: dict, key: str) -> float:
    return max(figures[key] for figures in results["models"].values())


class Goal(NamedTuple):
    """An upper limit on a figure of the results, by kind of processor or for all of them."""

    limits: dict[str, float] | float
    figure: Callable[[dict], float | None]  # None: not measured
    digits: int = 1

    def cell(self, results: dict) -> str:
        """The figure, its limit, and whether it is met."""
        limit, value = self.limits, self.figure(results)
        limit = limit.get(results["kind"]) if isinstance(limit, dict) else limit
        if value is None or limit is None:
            return MISSING if value is None else f"{value:.{self.digits}f}"
        met = "met" if value <= limit else "**not met**"
        return f"{value:.{self.digits}f} (at most {limit:.{self.digits}f}: {met})"


GOALS = {
    "model 9, one run: share of the conventional":
        Goal({"AMX": 0.20, "AVX-512": 0.22, "AVX2": 0.30}, lambda r: _median_ratio(r, "run"), 3),
    "model 9, one run a core: share of as many conventional ones":
        Goal({"AMX": 0.15, "AVX-512": 0.20, "AVX2": 0.25}, lambda r: _median_ratio(r, "sweep"), 3),
    "an epoch of best-final in epochs of model 9, one run a core": Goal(1.2, _separable_share),
    "`make run`, minutes": Goal(15, lambda r: r.get("make_run_minutes")),
    "peak memory of a run, MB": Goal(1500, lambda r: _highest(r, "peak_mb"), 0),
    "from the imports to the first step, seconds": Goal(6, lambda r: _highest(r, "startup_s")),
    "the same with nothing compiled yet, seconds": Goal(6, lambda r: r.get("startup_cold_s")),
    "a whole short run on all cores, seconds":
        Goal(120, lambda r: r.get("short", {}).get("seconds"), 0),
}  # fmt: skip


def _by_kind(what: str, found: list[dict], figures: dict, cell: Callable) -> str:
    """Markdown: a line per figure, a column per kind of processor, `cell(figure, results)` each."""
    rows = [(name, *(cell(figure, r) for r in found)) for name, figure in figures.items()]
    return markdown((what, *(results["kind"] for results in found)), rows)


def goals_table(found: list[dict]) -> str:
    """Markdown: each goal on each kind of processor."""
    return _by_kind("figure", found, GOALS, Goal.cell)


def rounds_table(found: list[dict]) -> str:
    """Markdown: median and extremes of every way, seconds of a training epoch of model 9."""
    return _by_kind(
        "model 9", found, WAYS, lambda way, r: _span(r["models"]["9"]["rounds"].get(way))
    )


def profile_table(found: list[dict]) -> str:
    """Markdown: the share of every kind of operation in a step of model 9 on one thread."""
    found = [results for results in found if "profile" in results]
    rows = [(kind, *(f"{100 * r['profile'][kind]:.0f} %" for r in found))
            for kind in found[0]["profile"]]  # fmt: skip
    return markdown(("share of a step", *(results["kind"] for results in found)), rows)


def machines_table(found: list[dict]) -> str:
    """Markdown: where and when each kind was measured."""
    rows = []
    for results in found:
        versions = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
        machine = f"{results['cores']} cores, {results['processor']}"
        rows.append((results["kind"], results["date"], machine, results["precision"], versions))
    return markdown(("kind", "date", "machine", "precision", "versions"), rows, left=5)


def _median(values: list[float] | None) -> str:
    return f"{statistics.median(values):.1f}" if values else MISSING


def _span(values: list[float] | None) -> str:
    if not values:
        return MISSING
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _epoch_row(results: dict, model: str) -> tuple[str, ...]:
    rounds = results["models"][model]["rounds"]
    one = _median(conventional(rounds)), _median(rounds["run"]), _span(ratios(rounds, "run"))
    at_once = _median(rounds.get("conventional_at_once")), _median(rounds["sweep"])
    return results["kind"], model, *one, *at_once, _span(ratios(rounds, "sweep"))


def epochs_table(found: list[dict]) -> str:
    """Markdown: seconds of a training epoch by processor and model, and the paired ratios."""
    rows = [_epoch_row(results, model) for results in found for model in results["models"]]
    columns = ("processor", "model", "conventional, s", "one run, s", "ratio",
               "conventional, one a core, s", "ours, one a core, s", "ratio")  # fmt: skip
    return markdown(columns, rows)


def summary_table(found: list[dict]) -> str:
    """Markdown, for docs/running.md: model 9 on every kind of processor."""
    rows = [_epoch_row(results, "9") for results in found]
    columns = ("processor", "conventional, s an epoch", "ours, s", "one run, ratio",
               "one run a core, ratio")  # fmt: skip
    return markdown(columns, [(row[0], *row[2:5], row[7]) for row in rows])


def race_text(found: list[dict]) -> str:
    """A whole run that may meet the brief, and the race with PyTorch's own example."""
    short = recorded(["9-short"], [STUDY])["9-short"]
    met = f"{runs_meeting_brief(short)} of its {len(short)} recorded seeds meet the brief"
    lines = [f"A run of the short recipe has {len(short[0].history)} epochs, and {met}."]
    for results in found:
        if ours := results.get("short"):
            line = f"{results['kind']}: such a run takes {ours['seconds']:.0f} s on all cores."
            peer = results.get("peer", {}).get("seconds_to_bar")
            if ours["seconds_to_bar"] and peer:
                line += f" It is at {BAR} % on the test set after {ours['seconds_to_bar']:.0f} s;"
                line += f" PyTorch's example after {peer:.0f} s."
            lines.append(line)
    return "\n".join(f"- {line}" for line in lines)


def scaling_table(found: list[dict]) -> str:
    """Markdown: four short runs on one worker and on two, start included."""
    took = [(r["kind"], r["scaling"]["1"], r["scaling"]["2"]) for r in found if "scaling" in r]
    rows = [(kind, f"{one:.0f}", f"{two:.0f}", f"{one / two:.2f}") for kind, one, two in took]
    return markdown(("processor", "1 worker, s", "2 workers, s", "speed-up"), rows)


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md and docs/running.md."""
    parts = {"machines": machines_table, "goals": goals_table, "epochs": epochs_table,
             "rounds": rounds_table, "profile": profile_table, "race": race_text,
             "scaling": scaling_table, "speed": summary_table}  # fmt: skip
    found = load_all()
    return {name: part(found) for name, part in parts.items()}
