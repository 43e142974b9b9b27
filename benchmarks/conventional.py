"""Training written as everybody writes it: the yardstick of the benchmark.

torchvision's dataset, PIL transforms image by image, a DataLoader, float32, torch's own layers.
"""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from models import NetworkConfig, build
from utils.data import ROOT
from utils.experiments import Recipe
from utils.layers import BatchNormAct2d, MaxPool2x2, ReLUDropout


def plain_network(config: NetworkConfig) -> nn.Module:
    """The same network of nn.BatchNorm2d, nn.ReLU, nn.Dropout and nn.MaxPool2d."""
    network = build(config)
    network.pool = nn.MaxPool2d(2)
    for stage in (network.edges, network.middle, network.late):
        for index, layer in enumerate(stage):
            if isinstance(layer, BatchNormAct2d):
                parts = [nn.BatchNorm2d(layer.num_features), nn.ReLU()]
            elif isinstance(layer, ReLUDropout):
                parts = [nn.ReLU()]
            else:
                continue
            stage[index] = nn.Sequential(*parts, *([nn.Dropout(layer.p)] if layer.p else []))
    assert not any(isinstance(m, BatchNormAct2d | MaxPool2x2) for m in network.modules())
    return network


def loader(recipe: Recipe, workers: int) -> DataLoader:
    """Batches of torchvision's MNIST, one PIL rotation for each of the recipe's."""
    transform = transforms.Compose(
        [
            *(transforms.RandomRotation(degrees) for degrees in recipe.rotations),
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,)),
        ]
    )
    dataset = datasets.MNIST(ROOT / "data", train=True, transform=transform)
    return DataLoader(dataset, recipe.batch_size, shuffle=True, num_workers=workers)


def seconds_per_step(config: NetworkConfig, recipe: Recipe, workers: int, steps: int) -> float:
    """Mean seconds of a training step over `steps` steps, after five that warm up."""
    network = plain_network(config).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum
    )
    for step, (images, labels) in enumerate(loader(recipe, workers)):
        if step == 5:
            started = time.perf_counter()
        if step == 5 + steps:
            seconds = time.perf_counter() - started  # before the workers are shut down
            break
        optimizer.zero_grad()
        loss = F.nll_loss(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
    return seconds / steps
