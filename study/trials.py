"""Every idea that was tried for the finals, with what it did.

Trials are compared on training images held out for it; the test set takes no part. docs/plan.md has
the rule by which an idea is taken.
"""

import statistics
from dataclasses import dataclass

from study.experiments import EXPERIMENTS, TRIALS, Experiment
from study.records import Record, count_parameters
from study.runs import recorded
from study.statistics import Interval, Spread, mean_interval, paired
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
    """What a trial did, against its base, paired by seed; or what a base did."""

    name: str
    score: float  # mean over seeds, percent
    lowest: float  # of the last five epochs, mean over seeds, percent
    gain: Spread  # points, one per seed; a base gains nothing over itself
    effect: Interval | None  # None for one seed

    @property
    def parameters(self) -> int:
        """Of its network."""
        return count_parameters(EXPERIMENTS[self.name].config)

    @property
    def trial(self) -> Experiment:
        """Its idea, and what it is compared with."""
        return EXPERIMENTS[self.name]

    def __str__(self) -> str:
        if not self.trial.base:
            return ""
        inside = f" ({self.effect.low:+.2f} to {self.effect.high:+.2f})" if self.effect else ""
        return f"{self.gain.mean:+.3f}{inside}"


def outcome(name: str) -> Outcome | None:
    """What a trial did, over the seeds that both it and its base have; None if there are none."""
    groups = []
    for experiment in (name, TRIALS[name].base if name in TRIALS else name):
        try:
            records = recorded([experiment], [STUDY])[experiment]
        except ValueError:
            return None
        groups.append(records)
    own, base = paired(*groups)
    if not own:
        return None
    gain = Spread(tuple(score(a) - score(b) for a, b in zip(own, base, strict=True)), "points")
    effect = mean_interval(gain) if gain.n > 1 else None
    means = (statistics.mean(map(of, own)) for of in (score, lowest))
    return Outcome(name, *means, gain, effect)


def outcomes(prefix: str = "") -> list[Outcome]:
    """Every trial that has run and whose name begins with `prefix`, in the order of the queue.

    What has no base but is one comes before its trials.
    """
    names = dict.fromkeys(each for name in TRIALS for each in (TRIALS[name].base, name))
    return [found for name in names if name.startswith(prefix) and (found := outcome(name))]
