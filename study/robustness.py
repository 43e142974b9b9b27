"""What kept networks answer beyond their accuracy: `python -m study.robustness` measures it.

Mistakes and confidence on the whole test set; accuracy on its first images rotated, shifted and
under noise, and on digits from elsewhere. That takes seconds a network, so the results are kept in
records/measured.json, a line for each run's key; a test measures some of them again.
"""

import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from models import IMAGE_SIZE
from study import store
from study.commands import status
from study.digit import as_mnist
from study.experiments import get_experiment
from study.records import Record
from study.store import STUDY, load_all, load_network, write_atomically
from utils.augmentation import apply_affine
from utils.data import ROOT, Dataset, load_mnist
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

    wrong: tuple[int, ...]  # test images that it gets wrong, counted from 0
    # Per bin of the probability of the answer: images, sum of probabilities, right answers.
    bins: tuple[tuple[int, float, int], ...]
    accuracy: dict[str, tuple[float, ...]]  # percent, by condition, as in CONDITIONS
    # Percent of scikit-learn's digits: prepared as MNIST, merely enlarged.
    out_of_distribution: tuple[float, float]


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images [N, 28, 28] uint8, all rotated counterclockwise by the same angle."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(())
    matrix = torch.stack([torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero])])
    matrices = matrix.expand(len(images), 2, 3)
    return apply_affine(images.unsqueeze(1).float(), matrices).squeeze(1).round().to(torch.uint8)


def shifted(images: Tensor, pixels: float) -> Tensor:
    """Images [N, 28, 28], all moved to the right and down; what leaves is lost."""
    by = int(pixels)
    return torch.nn.functional.pad(images, (by, 0, by, 0))[:, :IMAGE_SIZE, :IMAGE_SIZE]


def noisy(images: Tensor, std: float) -> Tensor:
    """Images [N, 28, 28] with independent Gaussian noise on every pixel, always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=generator) * 255 * std
    return (images + noise).clamp(0, 255).round().to(torch.uint8)


@functools.cache
def out_of_distribution_digits() -> tuple[Tensor, Tensor, Tensor]:
    """Scikit-learn's 1,797 digits of 8x8 pixels: prepared as MNIST, merely enlarged, and labels.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, 1998 (test part).
    """
    from sklearn.datasets import load_digits  # a second to import

    found = load_digits()
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(found.images)[:, None] / 16, IMAGE_SIZE, mode="bilinear"
    )
    prepared = torch.stack([as_mnist(image) for image in found.images])
    return prepared, enlarged, torch.from_numpy(found.target)


CHANGES = {"rotated": rotated, "shifted": shifted, "noise": noisy}


def measure(run: Record, data: Dataset) -> Measured:
    """Everything about one recorded network whose weights are kept."""
    network = load_network(run)
    confidence, answers = predict(network, data.test.images, run.statistics).exp().max(1)
    hit = answers == data.test.labels
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    bins = []
    for index in range(BINS):
        inside = which == index
        total = round(float(confidence[inside].double().sum()), 2)
        bins.append((int(inside.sum()), total, int(hit[inside].sum())))
    some = data.test.part(slice(IMAGES))
    accuracy = {}
    for name, values in CONDITIONS.items():
        changed = (CHANGES[name](some.images, value) for value in values)
        accuracy[name] = tuple(_share(network, run, each, some.labels) for each in changed)
    *ways, labels = out_of_distribution_digits()
    elsewhere = tuple(_share(network, run, images, labels) for images in ways)
    return Measured(tuple((~hit).nonzero()[:, 0].tolist()), tuple(bins), accuracy, elsewhere)


def _share(network: nn.Module, run: Record, images: Tensor, labels: Tensor) -> float:
    return 100 * int(correct(network, images, labels, run.statistics).sum()) / len(labels)


def of(runs: Sequence[Record]) -> list[Measured]:
    """What is known of those of the runs whose weights are kept; your own are measured now.

    Raises:
        ValueError: if none is kept.
    """
    stored, found = load(), []
    for run in runs:
        if run.path.is_relative_to(STUDY):
            found += [stored[run.key]] if run.key in stored else []
        elif run.run.measure_test and run.weights_path.exists():
            found.append(_measured_now(run.path, run.weights_sha256))
    if not found:
        name = runs[0].run.name
        raise ValueError(
            f"no network of {name} is measured; those in records/ are by python -m study.robustness"
        )
    return found


@functools.lru_cache(64)
def _measured_now(path: Path, weights: str) -> Measured:
    return measure(store.load(path), load_mnist())


_STORED = TypeAdapter(dict[str, Measured])


def load() -> dict[str, Measured]:
    """Everything measured so far, by the key of the run."""
    return _STORED.validate_json(FILE.read_bytes()) if FILE.exists() else {}


def save(found: dict[str, Measured]) -> None:
    """Write all, a line for each run."""
    lines = (f"{json.dumps(key)}: {json.dumps(vars(found[key]))}" for key in sorted(found))
    write_atomically(FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def kept() -> dict[str, Record]:
    """The recorded runs of the study whose weights are committed."""
    return {
        key: record
        for key, record in load_all([STUDY]).items()
        if get_experiment(record.run.name).keeps(record.run.seed)
    }


def main() -> int:
    """Command line; returns the exit status."""
    data, networks = load_mnist(ROOT / "data"), kept()  # the study's, whatever $MNIST_ROOT is
    found = {key: value for key, value in load().items() if key in networks}
    save(found)
    for key, run in networks.items():
        if key not in found:
            found[key] = measure(run, data)
            save(found)
            print(f"measured {run.run.title}", flush=True)
    print(f"{len(found)} networks are measured")
    return 0


if __name__ == "__main__":
    sys.exit(status(main))
