"""What kept networks answer beyond their accuracy: `python -m study.robustness` measures it.

Mistakes and confidence on the whole test set; accuracy on its first images rotated, shifted and
under noise, and on out-of-distribution digits. That takes seconds a network, so the results are
stored in records/measured.json, a line for each run's key; a test measures some of them again.
"""

import functools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import interpolate, one_hot, pad

from models import IMAGE_SIZE
from study.commands import status
from study.digit import SURE, as_mnist
from study.records import Record
from study.statistics import Spread, spread
from study.store import STUDY, load_all, load_network, write_atomically
from utils.augmentation import apply_affine
from utils.data import ROOT, Dataset, Split, load_mnist, split_validation
from utils.evaluation import correct, predict

FILE = STUDY / "measured.json"
IMAGES = 2_000  # of the test set, under each condition
BINS = 10  # of confidence
CONDITIONS: dict[str, tuple[float, ...]] = {
    "rotated": (-45, -30, -15, 0, 15, 30, 45),  # degrees, counterclockwise
    "shifted": (0, 1, 2, 3, 4, 5),  # pixels, to the right and down
    "noise": (0, 0.1, 0.2, 0.3, 0.4, 0.5),  # standard deviation, as a share of full ink
}


@dataclass(frozen=True)
class Measured:
    """One network's answers."""

    wrong: tuple[int, ...]  # misclassified test images, counted from 0
    # Per bin of the probability of the answer: images, sum of probabilities, correct answers.
    bins: tuple[tuple[int, float, int], ...]
    accuracy: dict[str, tuple[float, ...]]  # percent, by condition, as in CONDITIONS
    # Percent of scikit-learn's digits: prepared as MNIST, merely enlarged.
    out_of_distribution: tuple[float, float]


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images [N, 28, 28] uint8, all rotated counterclockwise by the same angle."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    cos, sin = float(angle.cos()), float(angle.sin())
    matrices = torch.tensor([[cos, -sin, 0], [sin, cos, 0]]).expand(len(images), 2, 3)
    return apply_affine(images.unsqueeze(1).float(), matrices).squeeze(1).round().to(torch.uint8)


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Images [N, 28, 28], all moved to the right and down; what leaves is lost."""
    return pad(images, (pixels, 0, pixels, 0))[:, :IMAGE_SIZE, :IMAGE_SIZE]


def noisy(images: Tensor, std: float) -> Tensor:
    """Images [N, 28, 28] with independent Gaussian noise on every pixel, always the same."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 255 * std
    return (images + noise).clamp(0, 255).round().to(torch.uint8)


@functools.cache
def out_of_distribution_digits() -> tuple[Tensor, Tensor, Tensor]:
    """Scikit-learn's 1,797 digits of 8x8 pixels: prepared as MNIST, merely enlarged, and labels.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, 1998 (test part).
    """
    from sklearn.datasets import load_digits  # a second to import

    found = load_digits()
    grey = torch.from_numpy(found.images)[:, None] / 16
    enlarged = interpolate(grey, IMAGE_SIZE, mode="bilinear")
    prepared = torch.stack([as_mnist(image) for image in found.images])
    return prepared, enlarged, torch.from_numpy(found.target)


def held_back(run: Record, data: Dataset) -> tuple[float, float]:
    """Of a trial's held-out images, and of its mistakes on them, the percentages "not sure"."""
    _, held = split_validation(data.train, run.run.recipe.held_out)
    most, answers = predict(load_network(run), held.images, run.statistics).exp().max(1)
    unsure, wrong = most < SURE, answers != held.labels
    shares = unsure.float().mean(), unsure[wrong].float().mean()
    return tuple(100 * float(share) for share in shares)


CHANGES = {"rotated": rotated, "shifted": shifted, "noise": noisy}
_STORED = TypeAdapter(dict[str, Measured])


def measure(run: Record, data: Dataset) -> Measured:
    """The answers of one recorded network whose weights are kept."""
    network = load_network(run)

    def percent_correct(images: Tensor, labels: Tensor) -> float:
        return 100 * int(correct(network, images, labels, run.statistics).sum()) / len(labels)

    confidence, answers = predict(network, data.test.images, run.statistics).exp().max(1)
    hit = answers == data.test.labels
    bin_of = (confidence * BINS).long().clamp(max=BINS - 1)
    bins = []
    for inside in (bin_of == index for index in range(BINS)):
        total = round(float(confidence[inside].double().sum()), 2)
        bins.append((int(inside.sum()), total, int(hit[inside].sum())))
    some = data.test.part(slice(IMAGES))
    accuracy = {
        name: tuple(percent_correct(CHANGES[name](some.images, v), some.labels) for v in values)
        for name, values in CONDITIONS.items()
    }
    *both, labels = out_of_distribution_digits()
    both = tuple(percent_correct(images, labels) for images in both)
    return Measured(tuple((~hit).nonzero()[:, 0].tolist()), tuple(bins), accuracy, both)


def recorded_answers(runs: Sequence[Record]) -> list[Measured]:
    """The answers, stored or measured now, of runs whose weights are kept; else a ValueError."""
    stored = load()
    kept = [run for run in runs if run.run.measure_test and run.weights_path.exists()]
    if not kept:
        raise ValueError(f"no weights of {runs[0].run.name} are kept; train it by `runs` first")
    return [stored.get(run.key) or measure(run, load_mnist()) for run in kept]


def accuracies(groups: dict[str, Sequence[Record]], condition: str) -> dict[str, list[Spread]]:
    """{experiment: accuracy over its networks for each value of the condition in `CONDITIONS`}."""
    found = {}
    for name, runs in groups.items():
        kept = (each.accuracy[condition] for each in recorded_answers(runs))
        found[name] = list(map(spread, zip(*kept, strict=True)))
    return found


def out_of_distribution(runs: Sequence[Record]) -> list[Spread]:
    """Accuracy on scikit-learn's digits: prepared as MNIST, and merely enlarged."""
    kept = [each.out_of_distribution for each in recorded_answers(runs)]
    return list(map(spread, zip(*kept, strict=True)))


def seed_spread(runs: Sequence[Record]) -> tuple[Spread, float]:
    """Accuracy of the measured networks, and the SD that independent chance at each image predicts.

    If each image i is missed independently with probability p_i, the number of mistakes has the
    variance sum of p_i (1 - p_i) (Jordan, 2023). A ValueError for fewer than two networks.
    """
    kept = recorded_answers(runs)
    n, total = len(kept), sum(images for images, *_ in kept[0].bins)
    if n < 2:
        raise ValueError("a spread needs two networks or more whose weights are kept; train more")
    misses = Counter(index for each in kept for index in each.wrong).values()
    variance = sum(m / n * (1 - m / n) for m in misses) * n / (n - 1)
    return spread(100 - 100 * len(each.wrong) / total for each in kept), 100 * variance**0.5 / total


def calibration(runs: Sequence[Record]) -> tuple[float, list[tuple[float, float, int]]]:
    """Probabilities that the measured networks give, against how often they are correct.

    Returns their difference averaged over images, percentage points (expected calibration error,
    Guo et al., 2017); and of each bin the mean probability, the share correct, the images.
    """
    bins = numpy.sum([each.bins for each in recorded_answers(runs)], 0).tolist()
    points = [(total / n, right / n, int(n)) for n, total, right in bins if n]
    apart = sum(n * abs(sure - share) for sure, share, n in points)
    return 100 * apart / sum(n for *_, n in points), points


def shared_mistakes(
    runs: Sequence[Record], test: Split
) -> tuple[int, int, list[tuple[int, float, int]]]:
    """The test images that more than half of the measured networks misclassify.

    Returns the number of networks; the number of images that any of them misclassifies; and of each
    shared mistake the image, the share of the networks, their most frequent wrong answer.
    """
    kept = recorded_answers(runs)
    missed = Counter(index for each in kept for index in each.wrong).most_common()
    shared = [(image, n / len(kept)) for image, n in missed if n > len(kept) / 2]
    some = test.part([image for image, _ in shared])
    answers = torch.zeros(len(shared), 10, dtype=torch.int64)
    for run in (run for run in runs if run.weights_path.exists()):
        answers += one_hot(predict(load_network(run), some.images, run.statistics).argmax(1), 10)
    answers[torch.arange(len(shared)), some.labels] = 0
    wrong = answers.argmax(1).tolist()
    return len(kept), len(missed), [(*pair, w) for pair, w in zip(shared, wrong, strict=True)]


def load() -> dict[str, Measured]:
    """Everything measured so far, by the key of the run."""
    return _STORED.validate_json(FILE.read_bytes()) if FILE.exists() else {}


def save(found: dict[str, Measured]) -> None:
    """Write all, a line for each run."""
    lines = (f"{json.dumps(key)}: {json.dumps(vars(found[key]))}" for key in sorted(found))
    write_atomically(FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def main() -> int:
    """Command line; returns the exit status."""
    data, stored = load_mnist(ROOT / "data"), load()  # the study's, whatever $MNIST_ROOT is
    runs = (run for run in load_all([STUDY]).values() if run.run.measure_test)  # shut for trials
    networks = {run.key: run for run in runs if run.weights_path.exists()}
    for key, run in networks.items():
        if key not in stored:
            stored[key] = measure(run, data)
            save(stored)
            print(f"measured {run.run.title}", flush=True)
    save({key: stored[key] for key in networks})
    print(f"{len(networks)} networks are measured")
    return 0


if __name__ == "__main__":
    sys.exit(status(main))
