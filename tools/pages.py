"""Renew the pages' figures and the pictures from records and results: `python -m tools.pages`.

Pages are README.md and some in benchmarks/ and docs/. What stands between the comments
`generated: NAME` and `end` is written here and nowhere else; a test proves that it is current.
"""

import hashlib
import json
import re
import sys
from collections import Counter

from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks import browser, engines, gpu, report
from study import trials
from study.experiments import EXPERIMENTS, FINALS, Experiment
from study.findings import FINDINGS, findings
from study.published import PUBLIC
from study.records import Record, count_parameters
from study.robustness import out_of_distribution
from study.runs import recorded
from study.show import plots
from study.show.tables import LADDER, markdown, table
from study.statistics import brief_met, final_test, precisions, runs_meeting_brief
from study.store import STUDY, load_all
from study.thresholds import BEST_GOALS, LOWEST_OF_A_FINAL, OTHERS_GOAL, RUNS_GOAL, SIZE_GOALS
from utils.data import ROOT
from utils.recipes import Recipe, changes

DOCS = ROOT / "docs"
RELIABILITY = DOCS / "reliability.json"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
PAGES += [DOCS / f"{name}.md" for name in ("plan", "running", "log", "reliability")]
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def claim_text(runs: dict[str, list[Record]]) -> str:
    """Markdown: the final of the highest mean, the smallest and the shortest that are reliable."""
    finals = {name: runs[name] for name in filter(runs.get, FINALS)}
    mean = {name: final_test(final).mean for name, final in finals.items()}
    reliable = [name for name in finals if runs_meeting_brief(finals[name]) >= RUNS_GOAL]
    reliable.sort(key=mean.get, reverse=True)
    chosen = {
        "The highest mean": max(finals, key=mean.get),
        "The smallest": min(reliable, key=lambda name: finals[name][0].parameters),
        "The shortest": min(reliable, key=lambda name: len(finals[name][0].history)),
    }
    return "\n".join(
        f"- {what}: **{finals[name][0].parameters:,} parameters, {len(finals[name][0].history)} "
        f"epochs** (`{name}`), **{final_test(finals[name])}** test accuracy; meeting the brief: "
        f"{brief_met(finals[name])}; number format: {precisions(finals[name])}."
        for what, name in chosen.items()
    )


def timing_text() -> str:
    """How long `make run` takes, by the benchmark."""
    return "\n".join(
        f"On {results['cores']} cores with {results['kind']}, `make run` took "
        f"{results['make_run_minutes']:.1f} minutes, not counting the installation."
        for results in report.load_all()
        if "make_run_minutes" in results
    )


def plan_table() -> str:
    """Markdown: every experiment but the trials, its difference from its model, and its seeds."""
    rows = []
    for name, made in EXPERIMENTS.items():
        if made.kind != "trials":
            model = EXPERIMENTS[str(made.model)] if made.model else None
            network = changes(model.config, made.config) if model else {}
            recipe = changes(model.recipe if model else Recipe(), made.recipe)
            apart = [] if model else [repr(made.config)]
            apart += _settings(network | recipe)
            apart += ["float32, torch's own layers"] if made.reference else []
            rows.append((name, "; ".join(apart), _seeds(made)))
    columns = ("experiment", "differs from the model of its number in", "seeds")
    return markdown(columns, rows, left=3)


def trials_table() -> str:
    """Markdown: every idea of the searches for the finals, what it is compared with, its seeds."""
    rows = []
    for name, made in EXPERIMENTS.items():
        if made.kind == "trials":
            size = f"{count_parameters(made.config):,} parameters"
            settings = "; ".join([size, *_settings(changes(Recipe(), made.recipe))])
            rows.append((name, made.idea if made.base else settings, made.base, _seeds(made)))
    return markdown(("trial", "idea", "compared with", "seeds"), rows, left=4)


def _settings(changed: dict[str, tuple]) -> list[str]:
    return [f"{name} {after!r}" for name, (_, after) in changed.items()]


def _seeds(made: Experiment) -> str:
    return f"0 to {made.seeds[-1]}" if made.seeds[1:] else "0"


def statements_table() -> str:
    """Markdown: every finding with its threshold, without any figure."""
    rows = [
        (
            f.id,
            f.statement,
            " less ".join(f.names) + (", paired" if f.paired else ""),
            f"{'above' if f.side == '>' else 'below'} {f.threshold:.2f}",
        )
        for f in FINDINGS
    ]
    return markdown(("finding", "statement", "effect of", "stated"), rows, left=4)


def judged_table() -> str:
    """Markdown: every finding with its verdict."""
    rows = [(each.finding.id, each.outcome, each.effect, each.n) for each in findings()]
    return markdown(("finding", "verdict", "effect", "seeds"), rows, left=3)


def performance_log() -> str:
    """Markdown: one line per idea of the trials, failures too."""
    rows = []
    for found in trials.outcomes():
        trial, size = EXPERIMENTS[found.name], f"{found.parameters:,}"
        figures = f"{found.score:.2f}", f"{found.lowest:.3f}", str(found), found.gain.n
        figures += (found.precision,)
        taken = "yes" if trial.taken else ""
        rows.append((trial.idea, size, found.name, trial.base, *figures, taken))
    columns = ("idea", "parameters", "trial", "compared with", "held-out %", "lowest %",
               "gain, points", "seeds", "precision", "in a final")  # fmt: skip
    return markdown(columns, rows)


def goals_table(finals: dict[str, list[Record]]) -> str:
    """The goals of the finals, and what they and the trials on held-out images reached."""
    rows = []
    for name, runs in finals.items():
        goal, reached = f"{RUNS_GOAL} of 20 runs meet the brief", brief_met(runs)
        met = runs_meeting_brief(runs) >= RUNS_GOAL
        if name in BEST_GOALS:
            goal, found = f"{BEST_GOALS[name]:.2f} % on average", final_test(runs)
            reached = f"{found.mean:.3f} ± {found.sd:.3f} % (n = {found.n})"
            met = found.mean >= BEST_GOALS[name]
        rows.append((name, goal, reached, precisions(runs), met))
        if name == "wild-final":
            goal, found = f"{OTHERS_GOAL} % of scikit-learn's digits", out_of_distribution(runs)[0]
            rows.append((name, goal, found, precisions(runs), found.mean >= OTHERS_GOAL))
    for limit in SIZE_GOALS:
        small = [found for found in trials.outcomes() if found.parameters < limit]
        best = max(small, key=lambda found: found.lowest)
        goal = f"lowest of the last five {LOWEST_OF_A_FINAL} % below {limit:,} parameters"
        reached = f"{best.lowest:.3f} % at {best.parameters:,}, held-out images ({best.name})"
        rows.append(("smallest", goal, reached, best.precision, best.lowest >= LOWEST_OF_A_FINAL))
    rows = [(*row, "yes" if met else "no") for *row, met in rows]
    return markdown(("of", "goal", "best reached", "precision", "met"), rows, left=5)


def blocks(runs: dict[str, list[Record]]) -> dict[str, str]:
    """Every generated block by name."""
    return {
        "claim": claim_text(runs),
        "pictures": pictures_text(runs),
        "results": table(LADDER, runs),
        "timing": timing_text(),
        **report.blocks(),
        **engines.blocks(),
        "plan": plan_table(),
        "trials": trials_table(),
        "judged": judged_table(),
        "log": performance_log(),
        "reached": goals_table({name: runs[name] for name in filter(runs.get, FINALS)}),
        "statements": statements_table(),
        "browser": browser.text(),
        "reliability": reliability_table(reliability_counts()),
        "processors": processors_table(),
        "gpu": gpu.text(gpu.load()),
    }


def processors_table() -> str:
    """Markdown: how many records each kind of processor made, and in what precision."""
    made = Counter(
        (record.processor, record.engine.precision) for record in load_all([STUDY]).values()
    )
    rows = [(kind, precision, count) for (kind, precision), count in sorted(made.items())]
    return markdown(("processor", "precision", "records"), rows, left=2)


def reliability_counts() -> dict:
    """The counts that `tools.reliability` stored; bytes and values: by a former version of it."""
    return json.loads(RELIABILITY.read_text(encoding="utf-8"))


FLIPPED = (
    "{one line:,} answered by one line, {without effect:,} without effect, "
    "{unnoticed:,} unnoticed, {traceback:,} tracebacks"
)
VALUES = "{one line:,} answered by one line, {result:,} valid after all, {traceback:,} tracebacks"
KILLED = (
    "{identical:,} with the same bits, {orphans:,} processes and {shared memory:,} segments of "
    "shared memory left behind, {torn files:,} torn files"
)


def reliability_table(found: dict) -> str:
    """Markdown: what was tried, how often, and the outcome, of the counts as stored."""
    rows = []
    for kind, counts in found["flips"].items():
        what = f"a byte changed in {kind} (repeated by `tests/test_records.py`)"
        rows.append((what, sum(counts.values()), FLIPPED.format_map(Counter(counts))))
    what, values = "a value of the wrong type (see `tests/test_recipes.py`)", found["values"]
    rows.append((what, sum(values.values()), VALUES.format_map(Counter(values))))
    for name, where in (("kills", ""), ("kills, starved", ", a tenth of a core per process")):
        what, counts = f"a sweep killed and run again{where}", found[name]
        rows.append((what, counts["kills"], KILLED.format_map(counts)))
    slept, raced = found["suspensions"], found["races"]
    what = f"a sweep suspended for {slept['seconds']} seconds, as by a laptop's lid"
    rows.append((what, slept["times"], f"{slept['identical']} went on and gave the same bits"))
    what = "one sweep started twice at once, into one folder"
    rows.append((what, raced["times"], f"{raced['whole']} with each run once, with its weights"))
    planted, unseen = found["mutants"], found["unseen"]
    rows.append(("a bug planted", planted["planted"], f"{planted['caught']} caught by a test"))
    apart = unseen["apart"].values()
    near, far = sum(abs(each) <= 3 for each in apart), max(apart, key=abs)
    outcome = f"{near} end within three standard deviations of its mean, the furthest at {far:+.1f}"
    what = f"{', '.join(unseen['apart'])}, each from seed {unseen['seed']}, not among its runs"
    rows.append((what, len(apart), outcome))
    in_order = sorted(found["tests"], key=lambda version: [*map(int, version.split("."))])
    for python, counts in ((version, found["tests"][version]) for version in in_order):
        what = f"the tests, Python {python}, torch {counts['torch']}, numpy {counts['numpy']}"
        outcome = f"{counts['passed']} passed, {counts['failed']} failed"
        rows.append((f"{what}; {counts['processor']}", 1, outcome))
    return markdown(("what was tried", "times", "outcome"), rows)


def pictures(runs: dict[str, list[Record]]) -> dict[str, Figure]:
    """The README's pictures by file name in docs/."""
    near = {name: runs[name] for name in ("9", "10", *filter(runs.get, FINALS))}
    return {
        "results.png": plots.ladder(near),
        "frontier.png": plots.frontier(runs, PUBLIC, trials.outcomes()),
    }


def pictures_text(runs: dict[str, list[Record]]) -> str:
    """Markdown: the pictures, each with its alternative text."""
    found = pictures(runs)
    for figure in found.values():
        pyplot.close(figure)
    return "\n\n".join(f"![{figure.alt}](docs/{name})" for name, figure in found.items())


def renewed(text: str, content: dict[str, str]) -> str:
    """A page's text with every generated block renewed, given all `blocks`.

    Raises:
        KeyError: for a block whose name nothing generates.
    """
    return BLOCK.sub(lambda found: f"{found[1]}{content[found[2]]}\n{found[3]}", text)


def draw_pictures(runs: dict[str, list[Record]]) -> None:
    """Draw each; it carries its alternative text and what it was drawn from, which a test reads."""
    for name, figure in pictures(runs).items():
        about = {"Description": figure.alt, "Source": drawn_from(runs)}
        figure.savefig(DOCS / name, dpi=120, metadata=about)
        pyplot.close(figure)


def drawn_from(runs: dict[str, list[Record]]) -> str:
    """A digest of all that the pictures show."""
    shown = [(name, run.parameters, run.test_accuracy) for name in runs for run in runs[name]]
    return hashlib.sha256(repr((shown, PUBLIC)).encode()).hexdigest()


def main() -> int:
    """Command line; returns the exit status."""
    runs = recorded(folders=[STUDY])
    content = blocks(runs)
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8"), content), encoding="utf-8")
    draw_pictures(runs)
    print("renewed", *(path.relative_to(ROOT) for path in PAGES), "and the pictures in docs/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
