"""Does the fast engine cost accuracy? Five seeds of model 9 on it and on a float32 reference.

Seeds 0 to 2 of the fast path are the study's own records; the rest is in `records/engines/`, made
with `make evidence`.
"""

from itertools import pairwise

from utils.analysis import difference, final_test
from utils.data import ROOT
from utils.records import Record, job, load_all

STUDY = ROOT / "records"
FAST = STUDY / "engines" / "fast"
REFERENCE = STUDY / "engines" / "float32"
SEEDS = range(5)
MARGIN = 0.05  # points


def runs() -> tuple[list[Record], list[Record]]:
    """The five runs on the fast path and the five on the reference path, by seed."""
    wanted = job(9)
    return tuple(
        [
            record
            for record in load_all(folders)
            if (record.label, record.config, record.recipe)
            == (wanted.label, wanted.config, wanted.recipe)
            and record.seed in SEEDS
        ]
        for folders in ([STUDY, FAST], [REFERENCE])
    )


def table() -> str:
    """Markdown: final test accuracy and seconds of every seed on both paths, and the means."""
    fast, reference = runs()
    lines = [
        "| seed | fast path, test % | rate drops after epoch | reference, test % "
        "| rate drops after epoch |",
        "|---|--:|--:|--:|--:|",
    ]
    for ours, theirs in zip(fast, reference, strict=True):
        lines.append(f"| {ours.seed} | {_cells(ours)} | {_cells(theirs)} |")
    lines.append(f"| mean | {final_test(fast)} | | {final_test(reference)} | |")
    return "\n".join(lines)


def _cells(record: Record) -> str:
    drops = [
        before.epoch
        for before, after in pairwise(record.history)
        if after.learning_rate < before.learning_rate
    ]
    return f"{record.test_accuracy[-1]:.2f} | {', '.join(map(str, drops)) or 'never'}"


def text() -> str:
    """The difference of the means, and whether it is within the margin."""
    fast, reference = runs()
    apart = difference(fast, reference)
    within = "within" if abs(apart.mean) <= MARGIN else "**outside**"
    return f"Fast minus reference: {apart}, {within} the margin of {MARGIN} points."


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md about the two paths."""
    return {"engines": f"{table()}\n\n{text()}"}
