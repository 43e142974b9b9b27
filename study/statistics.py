"""Verdicts and intervals, computed from records: the brief, spreads over seeds, differences.

Accuracies are those of the final epoch, never of the best one; every spread carries its mean, its
standard deviation and its number of seeds.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from scipy import stats

from study.records import Record
from study.thresholds import LAST_EPOCHS, MAX_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY


@dataclass(frozen=True)
class Verdict:
    """One run against the three demands of the brief."""

    worst_of_last: float  # percent: the lowest test accuracy of the last five epochs
    missing: list[str]  # the demands that do not hold, in words

    @property
    def met(self) -> bool:
        """Whether all three demands hold."""
        return not self.missing


def verdict(record: Record) -> Verdict:
    """Hold one run against the brief; a run of fewer than five epochs is held to all of them."""
    worst = min(record.test_accuracy[-LAST_EPOCHS:])
    demands = {
        # An accuracy is a count of images; 99.4 % of 10,000 must not fail by a rounding of floats.
        "accuracy": worst >= TARGET_ACCURACY - 1e-9,
        "epochs": len(record.history) <= MAX_EPOCHS,
        "size": record.parameters < PARAMETER_LIMIT,
    }
    return Verdict(worst, [name for name, holds in demands.items() if not holds])


@dataclass(frozen=True)
class Spread:
    """One figure per seed: their mean, sample standard deviation and number, with a unit."""

    values: tuple[float, ...]
    unit: str

    @property
    def mean(self) -> float:
        """Over the seeds."""
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


def spread(values: list[float], unit: str = "%") -> Spread:
    """One value per seed, with its unit.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("no runs are recorded to take a mean of; train one first")
    return Spread(tuple(values), unit)


def final_test(runs: list[Record]) -> Spread:
    """Test accuracy of the final epoch, percent."""
    return spread([run.test_accuracy[-1] for run in runs])


def best_test(runs: list[Record]) -> Spread:
    """Test accuracy of each run's best epoch, percent: what one must not report.

    Picking the epoch by its test accuracy flatters; it is here to compare with published figures
    that were picked so.
    """
    return spread([max(run.test_accuracy) for run in runs])


def final_train(runs: list[Record]) -> Spread:
    """Running train accuracy of the final epoch, percent."""
    return spread([run.train_accuracy[-1] for run in runs])


def final_gap(runs: list[Record]) -> Spread:
    """Train minus test accuracy of the final epoch, percentage points; above 0 is overfitting."""
    return spread([run.train_accuracy[-1] - run.test_accuracy[-1] for run in runs], "points")


def late_test(runs: list[Record]) -> Spread:
    """Test accuracy averaged over the last five epochs, percent: less at the mercy of one epoch."""
    return spread([statistics.mean(run.test_accuracy[-LAST_EPOCHS:]) for run in runs])


def late_range(runs: list[Record]) -> Spread:
    """How far test accuracy ranges within the last five epochs (max - min), points."""
    lasts = [run.test_accuracy[-LAST_EPOCHS:] for run in runs]
    return spread([max(last) - min(last) for last in lasts], "points")


def lowest_of_last(runs: list[Record]) -> Spread:
    """The lowest test accuracy of each run's last five epochs, percent: what the brief is about."""
    return spread([verdict(run).worst_of_last for run in runs])


def rate_drops(record: Record) -> list[int]:
    """The epochs after which a run's learning rate fell."""
    return [
        before.epoch
        for before, after in pairwise(record.history)
        if after.learning_rate < before.learning_rate
    ]


def runs_meeting_brief(runs: list[Record]) -> int:
    """How many of the runs meet all three demands."""
    return sum(verdict(run).met for run in runs)


def brief_met(runs: list[Record]) -> str:
    """How many runs meet the brief, and the exact interval of the share that would."""
    met = runs_meeting_brief(runs)
    low, high = share_interval(met, len(runs))
    return f"{met} of {len(runs)} ({100 * low:.0f} to {100 * high:.0f} %)"


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
        value, low, high = map(_signed, (self.value, self.low, self.high))
        return f"{value} {self.unit} (95 % interval {low} to {high})"


def _signed(figure: float) -> str:
    """Two decimals; more where they would hide on which side of zero it is."""
    return f"{figure:+.2f}" if abs(figure) >= 0.005 or not figure else f"{figure:+.4f}"


def difference(
    after: list[Record],
    before: list[Record],
    measure: Callable[[list[Record]], Spread] = final_test,
) -> Interval:
    """How much `measure` rose from one experiment to another (Welch's t-test over seeds).

    Raises:
        ValueError: for fewer than two seeds on either side: one seed has no spread.
    """
    a, b = measure(after), measure(before)
    if min(a.n, b.n) < 2:
        raise ValueError(
            f"a difference needs two seeds or more of each, not {a.n} and {b.n}; train more"
        )
    if not a.sd and not b.sd:  # all alike on both sides, which the test cannot divide by
        return Interval(a.mean - b.mean, a.mean - b.mean, a.mean - b.mean)
    low, high = stats.ttest_ind(a.values, b.values, equal_var=False).confidence_interval(0.95)
    return Interval(a.mean - b.mean, float(low), float(high))


def paired(after: list[Record], before: list[Record]) -> tuple[list[Record], list[Record]]:
    """The runs of both whose seed the other has, too, in the order of the seeds."""
    both = {r.run.seed for r in after} & {r.run.seed for r in before}
    sides = ([r for r in records if r.run.seed in both] for records in (after, before))
    return tuple(sorted(side, key=lambda r: r.run.seed) for side in sides)


def paired_difference(
    after: list[Record],
    before: list[Record],
    measure: Callable[[list[Record]], Spread] = final_test,
) -> Interval:
    """How much `measure` rose from one experiment to another, seed by seed (paired t-test).

    Raises:
        ValueError: for fewer than two seeds that both have.
    """
    a, b = map(measure, paired(after, before))
    apart = tuple(x - y for x, y in zip(a.values, b.values, strict=True))
    return mean_interval(Spread(apart, "points"))


def mean_interval(figure: Spread) -> Interval:
    """The mean over seeds with its interval (Student's t).

    Raises:
        ValueError: for fewer than two seeds.
    """
    if figure.n < 2:
        raise ValueError(f"an interval needs two seeds or more, not {figure.n}; train more")
    if not figure.sd:
        return Interval(figure.mean, figure.mean, figure.mean, figure.unit)
    low, high = stats.ttest_1samp(figure.values, 0).confidence_interval(0.95)
    return Interval(figure.mean, float(low), float(high), figure.unit)


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Exact 95 % interval (Clopper and Pearson, 1934) of a share, both ends in 0..1."""
    return tuple(stats.binomtest(successes, trials).proportion_ci(0.95, method="exact"))
