"""Every idea that was tried for the finals, with what it did.

Trials are compared on training images held out for it; the test set takes no part. docs/plan.md has
the rule by which an idea is taken.
"""

import statistics
from dataclasses import dataclass

from utils.analysis import LAST_EPOCHS, Interval, Spread, mean_interval
from utils.experiments import TRIALS
from utils.records import Record
from utils.runs import study
from utils.store import STUDY

GAIN = 0.02  # points, from which on an idea is taken


def score(record: Record) -> float:
    """Mean held-out accuracy of the last five epochs, percent."""
    return statistics.mean(row.validation_accuracy for row in record.history[-LAST_EPOCHS:])


@dataclass(frozen=True)
class Outcome:
    """What a trial did, against its base, paired by seed."""

    name: str
    score: float  # mean over seeds, percent
    gain: Spread  # points, one per seed
    effect: Interval | None  # None for one seed

    def __str__(self) -> str:
        inside = f" ({self.effect.low:+.2f} to {self.effect.high:+.2f})" if self.effect else ""
        return f"{self.gain.mean:+.3f}{inside}"


def outcome(name: str) -> Outcome | None:
    """What a trial did, over the seeds that both it and its base have; None if there are none."""
    scores = []
    for experiment in (name, TRIALS[name].base):
        try:
            records = study([experiment], [STUDY])[experiment]
        except ValueError:
            return None
        scores.append({record.run.seed: score(record) for record in records})
    own, base = scores
    seeds = sorted(own.keys() & base.keys())
    if not seeds:
        return None
    gain = Spread(tuple(own[seed] - base[seed] for seed in seeds), "points")
    effect = mean_interval(gain) if gain.n > 1 else None
    return Outcome(name, statistics.mean(own[seed] for seed in seeds), gain, effect)


def outcomes() -> list[Outcome]:
    """Every trial that has run, in the order of the queue."""
    return [found for found in map(outcome, TRIALS) if found]
