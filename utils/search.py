"""Choosing the finals' recipe, on the validation split: `python -m utils.search`.

Round 1 trains every candidate on both final networks with one seed; round 2 gives the best two a
second seed. The score is the mean validation accuracy of the last five epochs, the brief's window;
the candidate with the highest mean score over its runs of round 1 and 2 wins. The test set is not
even loaded into a measurement: these records have no test column.
"""

import argparse
import statistics
import sys
from pathlib import Path

from models import MODELS
from utils.data import ROOT, load_mnist
from utils.experiments import CANDIDATES
from utils.records import Job, Record
from utils.sweep import finished, run_command

FOLDER = ROOT / "records" / "search"
NETWORKS = (9, 10)
FINALISTS = 2
WINDOW = 5  # epochs


def jobs(candidates: list[str], seed: int) -> list[Job]:
    """One run of each candidate on each final network."""
    return [
        Job(f"{model}-{name}", MODELS[model], CANDIDATES[name], seed, False)
        for name in candidates
        for model in NETWORKS
    ]


def score(record: Record) -> float:
    """Mean validation accuracy of the last five epochs, percent."""
    return statistics.mean(row.validation_accuracy for row in record.history[-WINDOW:])


def scores(folder: Path, checksum: str) -> dict[str, dict[int, list[float]]]:
    """{candidate: {model: [score of seed 0, of seed 1]}} of the runs recorded in `folder`."""
    table: dict[str, dict[int, list[float]]] = {}
    for name in CANDIDATES:
        table[name] = {model: [] for model in NETWORKS}
        for seed in (0, 1):
            for record, job in _recorded(jobs([name], seed), folder, checksum):
                table[name][int(job.label.split("-")[0])].append(score(record))
    return table


def _recorded(wanted: list[Job], folder: Path, checksum: str) -> list[tuple[Record, Job]]:
    pairs = ((finished([job], folder, checksum), job) for job in wanted)
    return [(found[0], job) for found, job in pairs if found]


def mean_score(by_model: dict[int, list[float]], seeds: int) -> float:
    """Mean over both networks and the first `seeds` seeds."""
    return statistics.mean(value for model in NETWORKS for value in by_model[model][:seeds])


def finalists(table: dict[str, dict[int, list[float]]]) -> list[str]:
    """The best two candidates after round 1, best first."""
    return sorted(table, key=lambda name: -mean_score(table[name], seeds=1))[:FINALISTS]


def winner(folder: Path, checksum: str) -> str:
    """The candidate with the best mean over both rounds.

    Raises:
        ValueError: if the search is not complete in `folder`.
    """
    table = scores(folder, checksum)
    if not all(by_model[model] for by_model in table.values() for model in NETWORKS):
        raise ValueError(f"the search is not complete in {folder}; run python -m utils.search")
    names = finalists(table)
    if not all(len(table[name][model]) == 2 for name in names for model in NETWORKS):
        raise ValueError(f"round 2 is not complete in {folder}; run python -m utils.search")
    return max(names, key=lambda name: mean_score(table[name], seeds=2))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.search", description=__doc__)
    parser.add_argument("--store", type=Path, default=FOLDER)
    folder = parser.parse_args(arguments).store
    status = run_command(jobs(list(CANDIDATES), 0), folder, None)
    if status:
        return status
    checksum = load_mnist().checksum
    status = run_command(jobs(finalists(scores(folder, checksum)), 1), folder, None)
    if status:
        return status
    for name, by_model in scores(folder, checksum).items():
        print(f"{name:16s}", *(f"{value:.3f}" for model in NETWORKS for value in by_model[model]))
    print("winner:", winner(folder, checksum))
    return 0


if __name__ == "__main__":
    sys.exit(main())
