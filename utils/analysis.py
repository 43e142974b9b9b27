"""Verdicts and claims, computed from records: the brief, spreads over seeds, differences.

Accuracies are those of the final epoch, never of the best one; every spread carries its mean, its
standard deviation and its number of seeds.
"""

import functools
import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from utils.data import load_mnist
from utils.records import Record, job, load_all

TARGET_ACCURACY = 99.4  # percent, on the test set, in each of the last five epochs
LAST_EPOCHS = 5
MAX_EPOCHS = 15
PARAMETER_LIMIT = 8_000  # fewer than
TEST_IMAGES = 10_000
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; the last for all above.
STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.09, 1.96)


@dataclass(frozen=True)
class Verdict:
    """One run against the three demands of the brief."""

    worst_of_last: float  # percent: the lowest test accuracy of the last five epochs
    accurate: bool
    short: bool
    small: bool

    @property
    def met(self) -> bool:
        """Whether all three demands hold."""
        return self.accurate and self.short and self.small

    @property
    def missing(self) -> list[str]:
        """The demands that do not hold, in words."""
        demands = {"accuracy": self.accurate, "epochs": self.short, "size": self.small}
        return [name for name, holds in demands.items() if not holds]


def verdict(record: Record) -> Verdict:
    """Hold one run against the brief; a run of fewer than five epochs is held to all of them."""
    worst = min(record.test_accuracy[-LAST_EPOCHS:])
    # An accuracy is a count of images; 99.4 % of 10,000 must not fail by a rounding of floats.
    accurate = worst >= TARGET_ACCURACY - 1e-9
    return Verdict(
        worst, accurate, len(record.history) <= MAX_EPOCHS, record.parameters < PARAMETER_LIMIT
    )


def epochs_to_hold(accuracies: list[float], target: float = TARGET_ACCURACY) -> int | None:
    """The first epoch, from 1, from which all later ones hold `target`; None if the last does not.

    Args:
        accuracies: one per epoch, percent.
        target: percent.
    """
    held = None
    for epoch in range(len(accuracies), 0, -1):
        if accuracies[epoch - 1] < target - 1e-9:
            break
        held = epoch
    return held


@dataclass(frozen=True)
class Spread:
    """A figure over seeds: mean, sample standard deviation (None for one seed), n, and unit."""

    mean: float
    sd: float | None
    n: int
    unit: str

    def __str__(self) -> str:
        deviation = "" if self.sd is None else f" ± {self.sd:.2f}"
        return f"{self.mean:.2f}{deviation} {self.unit} (n = {self.n})"


def spread(values: list[float], unit: str = "%") -> Spread:
    """Mean, SD and n of one value per seed.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("no runs are recorded to take a mean of; train one first")
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.mean(values), deviation, len(values), unit)


def evidence(experiment: str | int) -> list[Record]:
    """All recorded seeds of a named experiment as it is defined now, in order of seeds.

    Records of other data, or of a network or recipe that has been edited since, do not count.

    Raises:
        ValueError: for an unknown name.
    """
    wanted = job(experiment)
    same = (wanted.label, wanted.config, wanted.recipe, _checksum(os.environ.get("MNIST_ROOT")))
    return [
        record
        for record in load_all()
        if (record.label, record.config, record.recipe, record.data_checksum) == same
    ]


@functools.cache
def _checksum(root: str | None) -> str:
    return load_mnist(root).checksum


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


def wobble(runs: list[Record]) -> Spread:
    """How far test accuracy ranges within the last five epochs (max - min), points."""
    lasts = [run.test_accuracy[-LAST_EPOCHS:] for run in runs]
    return spread([max(last) - min(last) for last in lasts], "points")


def runs_meeting_brief(runs: list[Record]) -> int:
    """How many of the runs meet all three demands."""
    return sum(verdict(run).met for run in runs)


@dataclass(frozen=True)
class Difference:
    """Mean of one spread minus another's, in points, with its standard error.

    One seed has no SD; its error is then the binomial one of 10,000 test images.
    """

    mean: float
    error: float
    freedom: int  # degrees of freedom of the error

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the 95 % confidence interval (Welch's t-test)."""
        return abs(self.mean) > STUDENT_95[min(self.freedom, len(STUDENT_95)) - 1] * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.2f} points (standard error {self.error:.2f})"


def difference(
    after: list[Record],
    before: list[Record],
    measure: Callable[[list[Record]], Spread] = final_test,
) -> Difference:
    """How much `measure` rose from one experiment to another."""
    a, b = measure(after), measure(before)
    error_a, error_b = _standard_error(a), _standard_error(b)
    error = math.hypot(error_a, error_b)
    # Welch and Satterthwaite; a binomial error counts as that of many observations.
    shares = [(error_a, a), (error_b, b)]
    spreads = sum(e**4 / (figure.n - 1) for e, figure in shares if figure.sd is not None)
    freedom = error**4 / spreads if spreads else float(len(STUDENT_95))
    return Difference(a.mean - b.mean, error, max(1, int(min(freedom, len(STUDENT_95)))))


def _standard_error(figure: Spread) -> float:
    """SD / sqrt(n) over seeds; for one seed the binomial error of 10,000 test images."""
    if figure.sd is not None:
        return figure.sd / math.sqrt(figure.n)
    share = min(max(figure.mean / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / TEST_IMAGES)


def claim(statement: str, holds: bool, *figures: object) -> None:
    """Print a statement of the analysis as held or not held, with the figures behind it."""
    print(f"{'held    ' if holds else 'NOT HELD'}  {statement}")
    print(f"{'':8s}    {'; '.join(map(str, figures))}")
