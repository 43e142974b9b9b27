"""Every idea that was tried for the finals, with its outcome.

Trials are compared on held-out training images; the test set takes no part. docs/plan.md has the
rule by which an idea is taken.
"""

import operator
import statistics
from dataclasses import dataclass

from study.experiments import EXPERIMENTS, TRIALS
from study.records import Record, count_parameters
from study.runs import recorded
from study.statistics import Interval, Spread, mean_interval, paired, precisions, spread
from study.store import STUDY
from study.thresholds import LAST_EPOCHS


def score(record: Record) -> float:
    """Mean held-out accuracy of the last five epochs, percent."""
    return statistics.mean(row.validation_accuracy for row in record.history[-LAST_EPOCHS:])


def lowest(record: Record) -> float:
    """Lowest held-out accuracy of the last five epochs, percent."""
    return min(row.validation_accuracy for row in record.history[-LAST_EPOCHS:])


@dataclass(frozen=True)
class Outcome:
    """The effect of a trial against its base, paired by seed; of a base, against itself."""

    name: str
    score: float  # mean over seeds, percent
    lowest: float  # of the last five epochs, mean over seeds, percent
    gain: Spread  # points, one per seed; 0 for a base
    effect: Interval | None  # None for one seed
    precision: str  # number format of its runs

    @property
    def parameters(self) -> int:
        """Number of its network's parameters."""
        return count_parameters(EXPERIMENTS[self.name].config)

    def __str__(self) -> str:
        if self.name not in TRIALS:
            return ""
        interval = f" ({self.effect.low:+.2f} to {self.effect.high:+.2f})" if self.effect else ""
        return f"{self.gain.mean:+.3f}{interval}"


def outcome(name: str) -> Outcome | None:
    """The outcome over the seeds that both the trial and its base have; None if there are none."""
    base = TRIALS[name].base if name in TRIALS else name
    try:
        own, others = paired(*(recorded([each], [STUDY])[each] for each in (name, base)))
        gain = spread(map(operator.sub, map(score, own), map(score, others)), "points")
    except ValueError:  # one of them has not run, or they have no seed in common
        return None
    means = (statistics.mean(map(measure, own)) for measure in (score, lowest))
    effect = mean_interval(gain) if gain.n > 1 else None
    return Outcome(name, *means, gain, effect, precisions(own))


def outcomes(prefix: str = "") -> list[Outcome]:
    """Every trial that has run and whose name begins with `prefix`, in the order of the queue.

    A base comes before its trials, also where it is no trial itself.
    """
    names = dict.fromkeys(each for name in TRIALS for each in (TRIALS[name].base, name))
    return [found for name in names if name.startswith(prefix) and (found := outcome(name))]
