"""Choosing the finals' recipe, on the validation split: `python -m utils.search`.

Round 1 trains every candidate on both final networks with one seed; round 2 gives the best two a
second seed. The score is the mean validation accuracy of the last five epochs, the brief's window;
the candidate with the highest mean score over its runs of round 1 and 2 wins. Then the shortest
recipe for network 9: the first whose mean final validation accuracy over three seeds is at most
0.05 points below that of the winner's runs on it. The test set is not even loaded into a
measurement: these records have no test column.
"""

import argparse
import statistics
import sys
from pathlib import Path

from models import MODELS
from utils.data import ROOT, load_mnist
from utils.experiments import CANDIDATES, SHORT_CANDIDATES
from utils.records import Job, Record
from utils.sweep import finished, run_command

FOLDER = ROOT / "records" / "search"
NETWORKS = (9, 10)
FINALISTS = 2
WINDOW = 5  # epochs
SHORT_NETWORK, SHORT_SEEDS = 9, (0, 1, 2)
MARGIN = 0.05  # points


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


def short_jobs() -> list[Job]:
    """Three runs of each short candidate."""
    return [
        Job(f"{SHORT_NETWORK}-{name}", MODELS[SHORT_NETWORK], recipe, seed, False)
        for name, recipe in SHORT_CANDIDATES.items()
        for seed in SHORT_SEEDS
    ]


def short_scores(folder: Path, checksum: str) -> dict[str, list[float]]:
    """{short candidate: final validation accuracy of each seed, percent}, fewest epochs first."""
    table: dict[str, list[float]] = {name: [] for name in SHORT_CANDIDATES}
    for record, job in _recorded(short_jobs(), folder, checksum):
        table[job.label.partition("-")[2]].append(_final(record))
    return table


def _final(record: Record) -> float:
    return record.history[-1].validation_accuracy


def short_bar(folder: Path, checksum: str) -> float:
    """What a short recipe must reach: mean final accuracy of the winner's runs, less the margin."""
    name = winner(folder, checksum)
    wanted = [Job(f"{SHORT_NETWORK}-{name}", MODELS[SHORT_NETWORK], CANDIDATES[name], seed, False)
              for seed in (0, 1)]  # fmt: skip
    return statistics.mean(_final(record) for record in finished(wanted, folder, checksum)) - MARGIN


def short_winner(folder: Path, checksum: str) -> str:
    """The short candidate with the fewest epochs that reaches the bar, else the best of them.

    Raises:
        ValueError: if the search is not complete in `folder`.
    """
    table = short_scores(folder, checksum)
    if not all(len(values) == len(SHORT_SEEDS) for values in table.values()):
        raise ValueError(f"the search is not complete in {folder}; run python -m utils.search")
    bar = short_bar(folder, checksum)
    means = {name: statistics.mean(values) for name, values in table.items()}
    reaching = [name for name, mean in means.items() if mean >= bar]
    return reaching[0] if reaching else max(means, key=means.__getitem__)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.search", description=__doc__)
    parser.add_argument("--store", type=Path, default=FOLDER)
    folder = parser.parse_args(arguments).store
    status = run_command(jobs(list(CANDIDATES), 0), folder, None)
    if status:
        return status
    checksum = load_mnist().checksum
    second = jobs(finalists(scores(folder, checksum)), 1)
    status = run_command(second + short_jobs(), folder, None)
    if status:
        return status
    for name, by_model in scores(folder, checksum).items():
        print(f"{name:16s}", *(f"{value:.3f}" for model in NETWORKS for value in by_model[model]))
    for name, values in short_scores(folder, checksum).items():
        print(f"{name:16s}", *(f"{value:.3f}" for value in values))
    print("winner:", winner(folder, checksum))
    print(f"short: {short_winner(folder, checksum)} (bar {short_bar(folder, checksum):.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
