"""How the finals' recipe was chosen, from the search's records: on the validation split alone.

Round 1 trained every candidate on both final networks with one seed; round 2 gave the best two a
second seed. The score is the mean validation accuracy of the last five epochs, the brief's window;
the candidate with the highest mean score over its runs of round 1 and 2 wins. Then the shortest
recipe for network 9: the first whose mean final validation accuracy over three seeds is at most
0.05 points below that of the winner's runs on it. These records have no test column.
"""

import statistics

from utils.recipes import CANDIDATES, SHORT_CANDIDATES
from utils.records import Record
from utils.runs import study
from utils.store import STUDY

NETWORKS = (9, 10)
FINALISTS = 2
WINDOW = 5  # epochs
SHORT_NETWORK = 9
MARGIN = 0.05  # points


def score(record: Record) -> float:
    """Mean validation accuracy of the last five epochs, percent."""
    return statistics.mean(row.validation_accuracy for row in record.history[-WINDOW:])


def scores() -> dict[str, dict[int, list[float]]]:
    """{candidate: {model: [score of seed 0, of seed 1]}} of the recorded runs.

    Raises:
        ValueError: if the search is not complete.
    """
    names = {name: {m: f"{m}-search-{name}" for m in NETWORKS} for name in CANDIDATES}
    found = study([name for by_model in names.values() for name in by_model.values()], [STUDY])
    return {
        candidate: {m: [score(record) for record in found[name]] for m, name in by_model.items()}
        for candidate, by_model in names.items()
    }


def mean_score(by_model: dict[int, list[float]], seeds: int) -> float:
    """Mean over both networks and the first `seeds` seeds."""
    return statistics.mean(value for model in NETWORKS for value in by_model[model][:seeds])


def finalists(table: dict[str, dict[int, list[float]]]) -> list[str]:
    """The best two candidates after round 1, best first."""
    return sorted(table, key=lambda name: -mean_score(table[name], seeds=1))[:FINALISTS]


def winner(table: dict[str, dict[int, list[float]]]) -> str:
    """The candidate with the best mean over both rounds."""
    return max(finalists(table), key=lambda name: mean_score(table[name], seeds=2))


def short_scores() -> dict[str, list[float]]:
    """{short candidate: final validation accuracy of each seed, percent}, fewest epochs first.

    Raises:
        ValueError: if the search is not complete.
    """
    names = {name: f"{SHORT_NETWORK}-search-{name}" for name in SHORT_CANDIDATES}
    found = study(names.values(), [STUDY])
    return {
        candidate: [record.history[-1].validation_accuracy for record in found[name]]
        for candidate, name in names.items()
    }


def short_bar(table: dict[str, dict[int, list[float]]]) -> float:
    """What a short recipe must reach: mean final accuracy of the winner's runs, less the margin."""
    name = f"{SHORT_NETWORK}-search-{winner(table)}"
    records = study([name], [STUDY])[name]
    return statistics.mean(record.history[-1].validation_accuracy for record in records) - MARGIN


def short_winner(table: dict[str, list[float]], bar: float) -> str:
    """The short candidate with the fewest epochs that reaches the bar, else the best of them."""
    means = {name: statistics.mean(values) for name, values in table.items()}
    reaching = [name for name, mean in means.items() if mean >= bar]
    return reaching[0] if reaching else max(means, key=means.__getitem__)
