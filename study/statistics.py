"""Statistics of records: the brief's verdict, spreads over seeds, differences with intervals.

Accuracies are those of the final epoch unless a name says otherwise. A spread carries its mean, its
sample standard deviation and its number of seeds.
"""

import operator
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from scipy import stats

from study.records import Record
from study.thresholds import LAST_EPOCHS, MAX_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY


class Verdict(NamedTuple):
    """Whether one run meets the three demands of the brief."""

    worst_of_last: float  # percent, the lowest test accuracy of the last five epochs
    missing: list[str]  # the demands that are not met

    @property
    def met(self) -> bool:
        """Whether all three demands are met."""
        return not self.missing


def verdict(record: Record) -> Verdict:
    """Compare one run with the brief; of fewer than five epochs, all count."""
    worst = min(record.test_accuracy[-LAST_EPOCHS:])
    demands = {
        # The tolerance: 9,940 of 10,000 images must not fail because of floating-point rounding.
        "accuracy": worst >= TARGET_ACCURACY - 1e-9,
        "epochs": len(record.history) <= MAX_EPOCHS,
        "size": record.parameters < PARAMETER_LIMIT,
    }
    return Verdict(worst, [name for name, holds in demands.items() if not holds])


@dataclass(frozen=True)
class Spread:
    """One value per seed, with their unit."""

    values: tuple[float, ...]
    unit: str

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; None for one seed."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    def __str__(self) -> str:
        return f"{self.short()} {self.unit} (n = {self.n})"

    def short(self) -> str:
        """Mean ± SD without unit and number."""
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" ± {self.sd:.2f}")


def spread(values: Iterable[float], unit: str = "%") -> Spread:
    """A `Spread` of one value or more; a ValueError if there is none."""
    values = tuple(values)
    if not values:
        raise ValueError("no runs are recorded to take a mean of; train one first")
    return Spread(values, unit)


def final_test(runs: list[Record]) -> Spread:
    """Test accuracy of the final epoch, percent."""
    return spread([run.test_accuracy[-1] for run in runs])


def best_test(runs: list[Record]) -> Spread:
    """Test accuracy of each run's best epoch, percent.

    It is biased, because the test set selects the epoch; published figures were selected so.
    """
    return spread([max(run.test_accuracy) for run in runs])


def final_train(runs: list[Record]) -> Spread:
    """Running train accuracy of the final epoch, percent."""
    return spread([run.train_accuracy[-1] for run in runs])


def final_gap(runs: list[Record]) -> Spread:
    """Train minus test accuracy of the final epoch, percentage points; above 0 is overfitting."""
    return spread([run.train_accuracy[-1] - run.test_accuracy[-1] for run in runs], "points")


def selection_bias(runs: list[Record]) -> Spread:
    """Test accuracy of the best epoch less that of the final one, percentage points."""
    return spread([max(run.test_accuracy) - run.test_accuracy[-1] for run in runs], "points")


def late_test(runs: list[Record]) -> Spread:
    """Mean test accuracy of the last five epochs, percent."""
    return spread([statistics.mean(run.test_accuracy[-LAST_EPOCHS:]) for run in runs])


def late_range(runs: list[Record]) -> Spread:
    """Range (max - min) of the test accuracy over the last five epochs, points."""
    lasts = (run.test_accuracy[-LAST_EPOCHS:] for run in runs)
    return spread([max(last) - min(last) for last in lasts], "points")


def lowest_of_last(runs: list[Record]) -> Spread:
    """Lowest test accuracy of the last five epochs, percent; the brief sets a limit to it."""
    return spread([verdict(run).worst_of_last for run in runs])


def rate_drops(record: Record) -> list[int]:
    """The epochs after which a run's learning rate fell."""
    pairs = pairwise(record.history)
    return [row.epoch for row, after in pairs if after.learning_rate < row.learning_rate]


def runs_meeting_brief(runs: list[Record]) -> int:
    """How many of the runs meet all three demands."""
    return sum(verdict(run).met for run in runs)


def brief_met(runs: list[Record]) -> str:
    """How many runs meet the brief, in words, with the 95 % interval of that share."""
    if runs[0].parameters >= PARAMETER_LIMIT:
        return "too large"
    met = runs_meeting_brief(runs)
    low, high = share_interval(met, len(runs))
    return f"{met} of {len(runs)} ({100 * low:.0f} to {100 * high:.0f} %)"


def precisions(runs: list[Record]) -> str:
    """In which number formats the runs were trained: one, or each with its number of runs."""
    counts = Counter(run.engine.precision for run in runs)
    return ", ".join(f"{n} {each}" if n < len(runs) else each for each, n in counts.items())


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float
    unit: str = "points"

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the interval; the only meaning of "clear" in this study."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if self.unit == "%":
            return f"{self.value:.2f} % (95 % interval {self.low:.2f} to {self.high:.2f})"
        # More decimals where two would hide on which side of zero the interval ends.
        digits = 2 if all(abs(end) >= 0.005 or not end for end in (self.low, self.high)) else 3
        value, low, high = (f"{x:+.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} {self.unit} (95 % interval {low} to {high})"


def paired(after: list[Record], before: list[Record]) -> tuple[list[Record], list[Record]]:
    """The runs of both experiments of the seeds that both have, in the order of the seeds."""
    sides = [{record.run.seed: record for record in records} for records in (after, before)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return tuple([side[seed] for seed in seeds] for side in sides)


def difference(
    after: list[Record],
    before: list[Record],
    measure: Callable[[list[Record]], Spread] = final_test,
    by_seed: bool = False,
) -> Interval:
    """Increase of the mean of `measure` from one experiment to another.

    By Welch's t-test, or with `by_seed` by the paired t-test over the seeds that both have; a
    ValueError for fewer than two seeds of either.
    """
    if len({run.data_checksum for run in (*after, *before)}) > 1:
        raise ValueError("the runs are on different data, and cannot be compared; use one data set")
    if by_seed:
        a, b = map(measure, paired(after, before))
        return mean_interval(spread(map(operator.sub, a.values, b.values), "points"))
    a, b = measure(after), measure(before)
    return _interval(a.mean - b.mean, "points", (a, b), partial(stats.ttest_ind, equal_var=False))


def mean_interval(figure: Spread) -> Interval:
    """The mean over seeds with its interval (Student's t); a ValueError for fewer than two."""
    return _interval(figure.mean, figure.unit, (figure,), partial(stats.ttest_1samp, popmean=0))


def _interval(value: float, unit: str, samples: tuple[Spread, ...], test: Callable) -> Interval:
    if min(sample.n for sample in samples) < 2:
        raise ValueError("an interval needs two seeds or more of each experiment; train more")
    low = high = value
    if any(sample.sd for sample in samples):  # else the test would divide by zero
        found = test(*(sample.values for sample in samples))
        low, high = map(float, found.confidence_interval(0.95))
    return Interval(value, low, high, unit)


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Exact 95 % interval of a share, both ends in 0..1 (Clopper and Pearson, 1934)."""
    return tuple(stats.binomtest(successes, trials).proportion_ci(0.95, method="exact"))
