"""Every table: layers with receptive fields, parameters by hand, results beside the published."""

from collections.abc import Iterable

from models import Config
from study import trials
from study.experiments import kind_of
from study.published import PUBLISHED, Published
from study.records import Record
from study.statistics import (
    best_test,
    brief_met,
    final_gap,
    final_test,
    final_train,
    lowest_of_last,
    runs_meeting_brief,
    verdict,
)
from study.thresholds import BEST_GOAL, LOWEST_OF_A_FINAL, RUNS_GOAL, SIZE_GOALS
from utils.data import CANONICAL_CHECKSUM
from utils.layers import layer_rows


def markdown(columns: Iterable[str], rows: Iterable[Iterable], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned left, the others right."""
    columns = list(columns)
    rule = ["---"] * left + ["--:"] * (len(columns) - left)
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def layer_table(config: Config) -> str:
    """Markdown: layer, output shape, receptive field, parameters by hand and counted, work."""
    found = layer_rows(config)
    rows = [
        (
            row.layer,
            "x".join(map(str, row.output)),
            row.receptive_field,
            row.formula,
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.multiplications:,}" if row.multiplications else "",
        )
        for row in found
    ]
    kinds = "by_hand", "parameters", "multiplications"
    totals = (f"**{sum(getattr(row, kind) for row in found):,}**" for kind in kinds)
    rows.append(("**total**", "", "", *totals))
    columns = ("layer", "output", "receptive field", "by hand", "parameters", "multiplications")
    return markdown(columns, rows, left=2)


def results(runs: list[Record]) -> str:
    """Markdown: one model's results over its seeds, beside the published figures."""
    published, quoted = _published(runs), ("", "", "")
    if published:
        quoted = (
            f"{published.parameters:,}",
            f"{published.train_accuracy:.2f} % ({published.train_epoch})",
            f"{published.test_accuracy:.2f} % ({published.test_epoch})",
        )
    rows = [
        ("parameters", f"{runs[0].parameters:,}", quoted[0]),
        ("train accuracy", final_train(runs), quoted[1]),
        ("**test accuracy**", f"**{final_test(runs)}**", ""),
        ("test accuracy of the best epoch, to compare", best_test(runs), quoted[2]),
        ("train - test", final_gap(runs), ""),
        ("lowest test accuracy of a run's last five epochs", lowest_of_last(runs), ""),
        ("runs that meet the brief (95 % interval of the share)", brief_met(runs), ""),
    ]
    ours, theirs = "here: mean ± SD over seeds, final epoch", "published: best epoch, one seed"
    columns = ("figure", ours, theirs)
    shown = 3 if published else 2
    return markdown(columns[:shown], [row[:shown] for row in rows])


def ladder_table(ladder: dict[str, list[Record]]) -> str:
    """Markdown: one line per experiment, {name: its runs}, in the order of the study."""
    rows = []
    for name, runs in ladder.items():
        published = _published(runs)
        rows.append(
            (
                name,
                f"{runs[0].parameters:,}",
                final_train(runs).short(),
                final_test(runs).short(),
                len(runs),
                f"{min(verdict(run).worst_of_last for run in runs):.2f}",
                f"{published.test_accuracy:.2f}" if published else "",
                brief_met(runs),
            )
        )
    columns = ("model", "parameters", "train %", "test %", "seeds", "lowest of any run",
               "published %", "brief met")  # fmt: skip
    return markdown(columns, rows)


def _published(runs: list[Record]) -> Published | None:
    """The published figures, if the runs are of one of the ten as it stands, on MNIST."""
    name, on_mnist = runs[0].run.name, runs[0].data_checksum == CANONICAL_CHECKSUM
    return PUBLISHED[int(name)] if kind_of(name) == "models" and on_mnist else None


def replication_table(pairs: dict[int, tuple[list[Record], list[Record]]]) -> str:
    """Markdown: each published figure beside the best epochs of our runs by the original's recipe.

    Args:
        pairs: {model: (runs by the original's code, runs by its description alone)}.
    """
    if not pairs:
        return "*Three seeds or more of these are not recorded yet.*"
    rows = []
    for model, (replicated, described) in pairs.items():
        quoted = PUBLISHED[model].test_accuracy
        best = best_test(replicated)
        within = min(best.values) <= quoted <= max(best.values)
        rows.append(
            (
                model,
                f"{quoted:.2f}",
                f"{best.short()} ({min(best.values):.2f} to {max(best.values):.2f})",
                best.n,
                "inside" if within else f"{'above' if quoted > best.mean else 'below'} ours",
                f"{best_test(described).short()}",
                f"{final_test(described).short()}",
            )
        )
    columns = ("model", "published best %", "our best epochs, its recipe %", "seeds",
               "published lies", "best, as described %", "final, as described %")  # fmt: skip
    return markdown(columns, rows)


def brief_table(groups: dict[str, list[Record]]) -> str:
    """Markdown: how many runs of each experiment meet the brief, with an exact interval."""
    rows = []
    for name, runs in groups.items():
        rows.append(
            (
                name,
                f"{runs[0].parameters:,}",
                len(runs[0].history),
                final_test(runs),
                lowest_of_last(runs).short(),
                brief_met(runs),
            )
        )
    columns = ("experiment", "parameters", "epochs", "final test accuracy", "lowest of last five %",
               "meet the brief (95 % interval)")  # fmt: skip
    return markdown(columns, rows)


def performance_log(prefix: str = "") -> str:
    """Markdown: one line per idea, failures too, of the trials whose name begins with `prefix`."""
    rows = [
        (
            found.trial.idea,
            f"{found.parameters:,}",
            found.name,
            found.trial.base,
            f"{found.score:.2f}",
            f"{found.lowest:.3f}",
            str(found),
            found.gain.n,
            "yes" if found.trial.taken else "",
        )
        for found in trials.outcomes(prefix)
    ]
    columns = ("idea", "parameters", "trial", "compared with", "held-out %", "lowest %",
               "gain, points", "seeds", "taken")  # fmt: skip
    return markdown(columns, rows)


def goals_table(finals: dict[str, list[Record]]) -> str:
    """Markdown: what the finals were to reach, and what they and the trials did reach."""
    rows = []
    for name, runs in finals.items():
        if name == "best-final":
            met = final_test(runs).mean >= BEST_GOAL
            goal, reached = f"{BEST_GOAL:.2f} % on average", str(final_test(runs))
        else:
            met = runs_meeting_brief(runs) >= RUNS_GOAL
            goal, reached = f"{RUNS_GOAL} of 20 runs meet the brief", brief_met(runs)
        rows.append((name, goal, reached, "yes" if met else "no"))
    tried = trials.outcomes()
    for limit in SIZE_GOALS:
        small = [found for found in tried if found.parameters < limit]
        goal = f"lowest of the last five {LOWEST_OF_A_FINAL} % below {limit:,} parameters"
        if not small:
            rows.append(("smallest", goal, "no network this small was tried", "no"))
        else:
            best = max(small, key=lambda found: found.lowest)
            figure = f"{best.lowest:.3f} % at {best.parameters:,}, held-out images ({best.name})"
            met = "yes" if best.lowest >= LOWEST_OF_A_FINAL else "no"
            rows.append(("smallest", goal, figure, met))
    return markdown(("of", "goal", "best reached", "met"), rows, left=4)
