"""Does the fast engine cost accuracy? The same seeds on it and on a float32 reference.

Twice: by model 9's own recipe, whose schedule waits for a plateau, and by the short one, whose
schedule is fixed.
"""

from itertools import pairwise

from utils.analysis import difference, final_test
from utils.records import Record
from utils.runs import study
from utils.store import STUDY
from utils.tables import markdown

MARGIN = 0.05  # points


def pairs(experiment: str) -> tuple[list[Record], list[Record]]:
    """The runs on the fast path and those on the reference path, of the seeds that both have."""
    fast, reference = study([experiment, f"{experiment}-reference"], [STUDY]).values()
    both = {r.run.seed for r in fast} & {r.run.seed for r in reference}
    return tuple([r for r in records if r.run.seed in both] for records in (fast, reference))


def table(experiment: str) -> str:
    """Markdown: final test accuracy of every seed on both paths, and when the rate dropped."""
    fast, reference = pairs(experiment)
    watched = fast[0].run.recipe.schedule == "plateau"
    columns = ["seed", "fast path, test %", "reference, test %"]
    if watched:
        columns[2:2] = ["rate drops after epoch"]
        columns.append("rate drops after epoch")
    rows = [
        (a.run.seed, *_cells(a, watched), *_cells(b, watched))
        for a, b in zip(fast, reference, strict=True)
    ]
    empty = ("",) if watched else ()
    rows.append(("mean", final_test(fast), *empty, final_test(reference), *empty))
    return markdown(columns, rows)


def _cells(record: Record, watched: bool) -> tuple[str, ...]:
    drops = [
        str(before.epoch)
        for before, after in pairwise(record.history)
        if after.learning_rate < before.learning_rate
    ]
    accuracy = f"{record.test_accuracy[-1]:.2f}"
    return (accuracy, ", ".join(drops) or "never") if watched else (accuracy,)


def text(experiment: str) -> str:
    """The difference of the means, and what the interval can and cannot exclude."""
    fast, reference = pairs(experiment)
    apart = difference(fast, reference)
    widest = max(abs(apart.low), abs(apart.high))
    if widest < MARGIN:
        verdict = f"a difference of {MARGIN} points or more is excluded"
    else:
        verdict = (
            f"{len(fast)} seeds cannot tell a difference of {MARGIN} points from none; what they "
            f"exclude is one of more than {widest:.2f}"
        )
    return f"Fast minus reference: {apart}: {verdict}."


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md about the two paths."""
    return {
        "engines": f"{table('9')}\n\n{text('9')}",
        "engines-fixed": f"{table('9-short')}\n\n{text('9-short')}",
    }
