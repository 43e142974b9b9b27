"""Shared fixtures: the real MNIST, small subsets of it, and records that no run has made."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import MODELS, build
from study.records import Record, Run, count_parameters
from study.runs import recorded
from study.store import STUDY, load, save, train, weights_checksum
from tools.small_mnist import subset, write_idx
from utils.data import ROOT, Dataset, load_mnist
from utils.device import ENGINE_VERSION, Engine
from utils.recipes import Recipe
from utils.training import EpochRow

torch.set_num_threads(1)  # subsets this small gain nothing from more


def python(*arguments: str, cwd: Path = ROOT, **variables) -> subprocess.CompletedProcess:
    """Run Python in the project's folder; a variable that is None is not in its environment."""
    env = {name: str(value) for name, value in (os.environ | variables).items() if value}
    options = {"cwd": cwd, "env": env, "capture_output": True, "text": True, "timeout": 900}
    return subprocess.run([sys.executable, *arguments], **options)


def of_study(name: str | int) -> list[Record]:
    """The committed runs of an experiment."""
    return recorded(name, [STUDY])[str(name)]


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    return load_mnist()


@pytest.fixture(scope="session")
def small(mnist) -> Dataset:
    """The first 600 training and 200 test images."""
    return subset(mnist, 600, 200)


@pytest.fixture(scope="session")
def small_root(small, tmp_path_factory) -> Path:
    """The small data set as files, for commands that read MNIST_ROOT."""
    root = tmp_path_factory.mktemp("small-mnist")
    write_idx(root / "MNIST" / "raw", small)
    return root


@pytest.fixture(scope="session")
def final() -> list[Record]:
    return of_study("9-final")


@pytest.fixture(scope="session")
def found() -> dict[str, list[Record]]:
    """Committed runs to show, by experiment."""
    return recorded(["1", "3", "4", "6", "9", "9-final", "10"], [STUDY])


QUICK = Recipe(learning_rate=0.05, batch_size=100, epochs=2)
RUN = Run("4-quick", MODELS[4], QUICK)


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Record:
    return train(RUN, small, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def record(trained, tmp_path) -> Record:
    """A trained record and its weights in a store of their own, to be damaged."""
    path = RUN.path(tmp_path)
    shutil.copytree(trained.path.parent, path.parent)
    return load(path)


@pytest.fixture
def make_record(tmp_path) -> Callable[..., Record]:
    """Make a record with its weights as initialised, without training, and store it.

    The factory takes a run, its test accuracies (one an epoch, percent), and fields of the record.
    """

    def make(run: Run = RUN, accuracies: list[float] | None = None, **fields) -> Record:
        accuracies = accuracies or [98.0] * run.recipe.epochs
        run = replace(run, recipe=replace(run.recipe, epochs=len(accuracies)))
        rate, state = run.recipe.learning_rate, build(run.config).state_dict()
        fields = {
            "data_checksum": "da7a",
            "parameters": count_parameters(run.config),
            "statistics": (0.13, 0.31),
            "history": [
                EpochRow(epoch, rate, 0.1, 99.0, None, None, 0.1, accuracy, 1.0)
                for epoch, accuracy in enumerate(accuracies, start=1)
            ],
            "confusion": None,
            "engine_version": ENGINE_VERSION,
            "engine": Engine(),
            "processor": "none",
            "versions": {},
            "seconds": 1.0,
            "weights_sha256": weights_checksum(state),
        } | fields
        key = run.key(fields["data_checksum"], fields["engine_version"])
        weights = {name: value.numpy() for name, value in state.items()}
        return save(Record(key=key, run=run, **fields), weights, tmp_path)

    return make
