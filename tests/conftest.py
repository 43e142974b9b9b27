"""Shared fixtures: the real MNIST, and small subsets of it that train in a second."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from models import MODELS
from study.records import SEAL, Record, Run
from study.store import load, train
from tools.small_mnist import subset, write_idx
from utils.data import Dataset, load_mnist
from utils.recipes import Recipe

torch.set_num_threads(1)  # subsets this small gain nothing from more


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


QUICK = Recipe(learning_rate=0.05, batch_size=100, epochs=2)
RUN = Run("4-quick", MODELS[4], QUICK)


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Record:
    return train(RUN, small, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def record(trained, tmp_path) -> Record:
    """A record and its weights in a store of their own, to be damaged."""
    path = RUN.path(tmp_path)
    shutil.copytree(trained.path.parent, path.parent)
    return load(path)


def seal(text: str) -> str:
    """Any JSON object as a record's text, its seal right."""
    body = text.rstrip().removesuffix("}").rstrip()
    return f'{body}{SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def unseal(text: str) -> str:
    """The JSON object before it was sealed."""
    return text.rpartition(SEAL)[0] + "\n}"


def forge(text: str, change: Callable[[dict], object], *, key: bool = False) -> str:
    """A record's text with changed content, sealed again; with its new key, too, if wanted."""
    content = json.loads(unseal(text))
    change(content)
    if key:
        run = TypeAdapter(Run).validate_json(json.dumps(content["run"]))
        content["key"] = run.key(content["data_checksum"])
    return seal(json.dumps(content))
