"""Does the fast engine cost accuracy? Five seeds of model 9 on it and on a float32 reference.

Twice: by the model's own recipe, whose schedule waits for a plateau, and by the short one, whose
schedule is fixed. Seeds 0 to 2 of the fast path are the study's own records; the rest is in
`records/engines/`, made with `make evidence`.
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


def runs(experiment: str) -> tuple[list[Record], list[Record]]:
    """The five runs on the fast path and the five on the reference path, by seed."""
    wanted = job(experiment)
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


def plateau_table() -> str:
    """Markdown: final test accuracy of every seed on both paths and when the rate dropped."""
    fast, reference = runs("9")
    lines = [
        "| seed | fast path, test % | rate drops after epoch | reference, test % "
        "| rate drops after epoch |",
        "|---|--:|--:|--:|--:|",
    ]
    for ours, theirs in zip(fast, reference, strict=True):
        lines.append(f"| {ours.seed} | {_cells(ours)} | {_cells(theirs)} |")
    lines.append(f"| mean | {final_test(fast)} | | {final_test(reference)} | |")
    return "\n".join(lines)


def _drops(record: Record) -> list[int]:
    """The epochs after which the learning rate dropped."""
    return [
        before.epoch
        for before, after in pairwise(record.history)
        if after.learning_rate < before.learning_rate
    ]


def _cells(record: Record) -> str:
    when = ", ".join(map(str, _drops(record))) or "never"
    return f"{record.test_accuracy[-1]:.2f} | {when}"


def plateau_text() -> str:
    """The difference of the means, whether it is within the margin, and what chance did to it."""
    fast, reference = runs("9")
    line = f"Fast minus reference: {_apart(fast, reference)}."
    settled = [[record for record in records if _drops(record)] for records in (fast, reference)]
    if [len(records) for records in settled] != [len(fast), len(reference)]:
        line += (
            " Whether and when this schedule drops the rate is chance (notebook 3), and a run in "
            "which it never does ends lower on either path. Without such runs, "
            f"{len(settled[0])} against {len(settled[1])} remain: {_apart(*settled)}."
        )
    return line


def fixed_table() -> str:
    """Markdown: the same of the short recipe."""
    fast, reference = runs("9-short")
    lines = ["| seed | fast path, test % | reference, test % |", "|---|--:|--:|"]
    for ours, theirs in zip(fast, reference, strict=True):
        accuracies = f"{ours.test_accuracy[-1]:.2f} | {theirs.test_accuracy[-1]:.2f}"
        lines.append(f"| {ours.seed} | {accuracies} |")
    lines.append(f"| mean | {final_test(fast)} | {final_test(reference)} |")
    return "\n".join(lines)


def fixed_text() -> str:
    """The difference of the means where no schedule waits for a plateau."""
    return f"Fast minus reference: {_apart(*runs('9-short'))}."


def _apart(fast: list[Record], reference: list[Record]) -> str:
    apart = difference(fast, reference)
    within = "within" if abs(apart.mean) <= MARGIN else "**outside**"
    sign = "clear of chance" if apart.clear else "not clear of chance"
    return (
        f"{apart.mean:+.3f} points (standard error {apart.error:.3f}), {within} the margin of "
        f"{MARGIN} points, {sign}"
    )


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md about the two paths."""
    return {
        "engines": f"{plateau_table()}\n\n{plateau_text()}",
        "engines-fixed": f"{fixed_table()}\n\n{fixed_text()}",
    }
