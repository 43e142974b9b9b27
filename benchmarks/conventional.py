"""Training in the usual way, the yardstick of the benchmark, and PyTorch's own MNIST example.

The usual way: torchvision's dataset, PIL transforms image by image, a DataLoader, float32, torch's
own layers. The example (repository pytorch/examples) is rewritten from its description.
"""

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.datasets.utils import extract_archive

from models import Config, build
from utils.data import CANONICAL, ROOT
from utils.recipes import Recipe

WARM_UP = 5  # steps
PEER_EPOCHS = 14  # as the example has it


@functools.cache
def root() -> tempfile.TemporaryDirectory:
    """A folder with the extracted files that torchvision reads; removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="mnist-bench-")
    raw = Path(folder.name) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in CANONICAL:
        extract_archive(str(ROOT / "data" / "MNIST" / "raw" / f"{name}.gz"), str(raw))
    return folder


def loader(train: bool, rotations: tuple[float, ...], batch_size: int, workers: int) -> DataLoader:
    """Batches of torchvision's MNIST, one PIL rotation for each of the recipe's."""
    rotate = [transforms.RandomRotation(degrees) for degrees in rotations]
    scale = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    dataset = datasets.MNIST(root().name, train, transforms.Compose([*rotate, *scale]))
    return DataLoader(dataset, batch_size, shuffle=train, num_workers=workers)


def seconds_per_step(config: Config, recipe: Recipe, workers: int, steps: int) -> float:
    """Mean seconds of a training step over `steps` steps, after a few that warm up."""
    network = build(config).train()
    optimizer = torch.optim.SGD(network.parameters(), recipe.learning_rate, recipe.momentum)
    batches = loader(True, recipe.rotations, recipe.batch_size, workers)
    for step, (images, labels) in enumerate(batches):
        if step == WARM_UP:
            started = time.perf_counter()
        if step == WARM_UP + steps:
            return (time.perf_counter() - started) / steps  # before the workers are shut down
        optimizer.zero_grad()
        loss = F.nll_loss(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()


def peer() -> nn.Sequential:
    """The example's network, of 1.2 million parameters: [N, 1, 28, 28] -> log-probabilities."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 10), nn.LogSoftmax(1),
    )  # fmt: skip


def peer_epochs() -> Iterator[tuple[float, float]]:
    """Train the example as it is; yields (seconds of training so far, test accuracy in percent)."""
    torch.manual_seed(1)
    network = peer()
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    train, test = loader(True, (), 64, 0), loader(False, (), 1000, 0)
    seconds = 0.0
    for _ in range(PEER_EPOCHS):
        started = time.perf_counter()
        network.train()
        for images, labels in train:
            optimizer.zero_grad()
            F.nll_loss(network(images), labels).backward()
            optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - started
        network.eval()
        with torch.inference_mode():
            correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in test)
        yield seconds, 100 * correct / len(test.dataset)
