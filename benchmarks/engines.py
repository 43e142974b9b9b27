"""Does the fast engine cost accuracy? The same seeds on it and on a float32 reference.

Twice: by model 9's own recipe, whose schedule waits for a plateau, and by the short one, whose
schedule is fixed.
"""

from scipy import stats

from study.records import Record
from study.runs import recorded
from study.show.tables import markdown
from study.statistics import difference, final_test, paired, rate_drops
from study.store import STUDY

MARGIN = 0.05  # points


def pairs(experiment: str) -> tuple[list[Record], list[Record]]:
    """The runs on the fast path and those on the reference path, of the seeds that both have."""
    return paired(*recorded([experiment, f"{experiment}-reference"], [STUDY]).values())


def table(experiment: str) -> str:
    """Markdown: final test accuracy of every seed on both paths, and when a plateau's rate fell."""
    fast, reference = pairs(experiment)
    drops = fast[0].run.recipe.schedule == "plateau"
    columns, means = ["seed"], ["mean"]
    cells = [[str(record.run.seed)] for record in fast]
    for name, records in (("fast path", fast), ("reference", reference)):
        columns += [f"{name}, test %"] + ["rate drops after epoch"] * drops
        means += [str(final_test(records))] + [""] * drops
        for row, record in zip(cells, records, strict=True):
            row.append(f"{record.test_accuracy[-1]:.2f}")
            row += [", ".join(map(str, rate_drops(record))) or "never"] * drops
    return markdown(columns, [*cells, means])


def text(experiment: str) -> str:
    """The difference of the means, and whether it is shown to lie within the margin.

    Two one-sided Welch t-tests at 5 % each (Schuirmann, 1987): both reject exactly if the 90 %
    interval lies within the margin.
    """
    fast, reference = pairs(experiment)
    ends = final_test(fast).values, final_test(reference).values
    test = stats.ttest_ind(*ends, equal_var=False).confidence_interval(0.90)
    widest, tests = max(-test.low, test.high), "two one-sided t-tests at 5 %"
    verdict = f"equivalent within {MARGIN} points ({tests})"
    if widest >= MARGIN:
        verdict = f"{len(fast)} seeds a side cannot tell: equivalence within {MARGIN} points is not"
        verdict += f" shown ({tests}), a difference of more than {widest:.2f} is excluded by them"
    return f"Fast minus reference: {difference(fast, reference)}; {verdict}."


def blocks() -> dict[str, str]:
    """The generated blocks of benchmarks/README.md about the two paths."""
    names = {"engines": "9", "engines-fixed": "9-short"}
    return {block: f"{table(name)}\n\n{text(name)}" for block, name in names.items()}
