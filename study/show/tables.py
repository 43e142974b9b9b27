"""Every table: layers with receptive fields, parameters by hand, results beside the published."""

from collections.abc import Callable, Iterable

from models import Config
from study import statistics as stats
from study.experiments import kind_of
from study.published import PUBLISHED, Published
from study.records import Record
from study.robustness import out_of_distribution, seed_spread
from utils.data import CANONICAL_CHECKSUM
from utils.layers import layer_rows

Columns = dict[str, Callable[[list[Record]], object]]  # {header: its cell for an experiment's runs}


def markdown(columns: Iterable[str], rows: Iterable[Iterable], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned left, the others right."""
    columns = list(columns)
    rule = ["---"] * left + ["--:"] * (len(columns) - left)
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(columns: Columns, groups: dict[str, list[Record]]) -> str:
    """Markdown: one line per experiment, with columns such as `LADDER`, in the order given."""
    rows = [(name, *(cell(runs) for cell in columns.values())) for name, runs in groups.items()]
    return markdown(("experiment", *columns), rows)


def _published(runs: list[Record]) -> Published | None:
    """The published figures, if the runs are of one of the ten as it stands, on MNIST."""
    name, on_mnist = runs[0].run.name, runs[0].data_checksum == CANONICAL_CHECKSUM
    return PUBLISHED[int(name)] if kind_of(name) == "models" and on_mnist else None


LADDER: Columns = {
    "parameters": lambda runs: f"{runs[0].parameters:,}",
    "epochs": lambda runs: len(runs[0].history),
    "train %": lambda runs: stats.final_train(runs).short(),
    "test %": lambda runs: stats.final_test(runs).short(),
    "seeds": len,
    "lowest of any run": lambda runs: f"{min(stats.lowest_of_last(runs).values):.2f}",
    "published %": lambda runs: f"{p.test_accuracy:.2f}" if (p := _published(runs)) else "",
    "brief met": stats.brief_met,
}
SPREADS: Columns = {
    "test accuracy": lambda runs: seed_spread(runs)[0],
    "SD, points": lambda runs: f"{seed_spread(runs)[0].sd:.3f}",
    "SD by independent chance at every image, points": lambda runs: f"{seed_spread(runs)[1]:.3f}",
}
ELSEWHERE: Columns = {
    "prepared as MNIST": lambda runs: out_of_distribution(runs)[0],
    "only enlarged": lambda runs: out_of_distribution(runs)[1],
}


def layer_table(config: Config) -> str:
    """Markdown: layer, output shape, receptive field, parameters by hand and counted, work."""
    found, rows = layer_rows(config), []
    for row in found:
        counts = (f"{count:,}" if count else "" for count in (row.parameters, row.multiplications))
        output = "x".join(map(str, row.output))
        rows.append((row.layer, output, row.receptive_field, row.formula, *counts))
    kinds = "by_hand", "parameters", "multiplications"
    totals = (f"**{sum(getattr(row, kind) for row in found):,}**" for kind in kinds)
    rows.append(("**total**", "", "", *totals))
    columns = ("layer", "output", "receptive field", "by hand", "parameters", "multiplications")
    return markdown(columns, rows, left=2)


def results(runs: list[Record]) -> str:
    """Markdown: one model's results over its seeds, beside the published figures."""
    published, train, test = _published(runs), "", ""
    if published:
        train = f"{published.train_accuracy:.2f} % ({published.train_epoch})"
        test = f"{published.test_accuracy:.2f} % ({published.test_epoch})"
    rows = [
        ("parameters", f"{runs[0].parameters:,}", f"{published.parameters:,}" if published else ""),
        ("train accuracy", stats.final_train(runs), train),
        ("**test accuracy**", f"**{stats.final_test(runs)}**", ""),
        ("test accuracy of the best epoch, to compare", stats.best_test(runs), test),
        ("train - test", stats.final_gap(runs), ""),
        ("lowest test accuracy of a run's last five epochs", stats.lowest_of_last(runs), ""),
        ("runs that meet the brief", stats.brief_met(runs), ""),
    ]
    ours, theirs = "here: mean ± SD over seeds, final epoch", "published: best epoch, one seed"
    return markdown(("quantity", ours, theirs), rows)


def replication_table(pairs: dict[int, tuple[list[Record], list[Record]]]) -> str:
    """Markdown: each published figure beside the best epochs of our runs by the original's recipe.

    pairs: {model: (runs by the original's code, runs by its description alone)}.
    """
    rows = []
    for model, (replicated, described) in pairs.items():
        quoted, best = PUBLISHED[model].test_accuracy, stats.best_test(replicated)
        low, high = min(best.values), max(best.values)
        ours = f"{best.short()} ({low:.2f} to {high:.2f})"
        lies = "above ours" if quoted > high else "below ours" if quoted < low else "inside"
        both = stats.best_test(described).short(), stats.final_test(described).short()
        rows.append((model, f"{quoted:.2f}", ours, best.n, lies, *both))
    columns = ("model", "published best %", "best epochs by its code % (range)", "seeds",
               "published is", "best by its text %", "final by its text %")  # fmt: skip
    return markdown(columns, rows)
