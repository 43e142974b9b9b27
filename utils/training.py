"""The only training loop of the project: `fit` is a pure function of its arguments.

Images stay uint8 and resident on the device; a batch is indexed, warped and normalised there. No
step waits for the device: losses and hits add up in tensors that are read once per epoch.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import lr_scheduler

import fast
from fast.graph import GraphedStep, side_stream
from models import Config, Network, SeparableNetwork, build
from utils.augmentation import batch, sample_affine
from utils.data import Dataset, Split, pixel_statistics, split_validation
from utils.device import ONE_RUN, Engine, best_engine, keep_memory, pinned
from utils.evaluation import accuracy, confusion_matrix, predict
from utils.recipes import Recipe, learning_rate
from utils.validation import NotNegative, OneLineError, Percent, Positive, Seed, check, checked

PROGRESS = 20  # steps between two reports
REMEDY = "lower the learning rate, or check the inputs"


class NonFiniteLossError(OneLineError, RuntimeError):
    """The loss became infinite or NaN."""


@checked
class EpochRow:
    """What one epoch measured. Accuracies in percent; None where there was no such split.

    Train loss and accuracy are the running figures of the epoch: dropout and warps on, weights
    moving. Validation and test figures are taken in float32 at the epoch's end, on the averaged
    weights where the recipe averages them. Losses are in nats.
    """

    epoch: Positive
    learning_rate: Annotated[float, Field(gt=0)]  # of the epoch's first step
    train_loss: NotNegative
    train_accuracy: Percent
    validation_loss: NotNegative | None
    validation_accuracy: Percent | None
    test_loss: NotNegative | None
    test_accuracy: Percent | None
    seconds: NotNegative  # training and evaluation


@dataclass
class Trained:
    """What `fit` returns."""

    history: list[EpochRow]
    # Plain, on the CPU, in evaluation mode; the averaged weights if there are any.
    network: Network | SeparableNetwork
    statistics: tuple[float, float]  # mean and SD of the pixels (scale 0..1) it normalises with
    engine: Engine
    confusion: list[list[int]] | None  # [true][predicted] after the last epoch, if measured
    interrupted: bool
    seconds: float


def fit(
    config: Config,
    recipe: Recipe,
    data: Dataset,
    seed: int,
    *,
    engine: Engine | None = None,
    measure_test: bool = True,
    report: Callable[[EpochRow], None] = lambda row: None,
    progress: Callable[[float], None] = lambda epochs: None,
) -> Trained:
    """Train one network by one recipe; on a CPU the same arguments give the same bits.

    Bit-for-bit holds on one machine with one `Engine`; CUDA's kernels may sum in another order.
    Ctrl-C ends the run cleanly: the epochs so far come back with `interrupted` set. Nothing here
    reads the test set but the measurement at the end of an epoch, and `measure_test=False` removes
    that, too.

    Args:
        config: the network.
        recipe: how to train it.
        data: from `utils.data.load_mnist`.
        seed: of weights, order of batches, warps and dropout.
        engine: where to compute; default `best_engine()`.
        measure_test: whether to measure the test split after each epoch.
        report: called with each finished epoch.
        progress: called now and then with the epochs done so far, a fraction; costs no wait.

    Raises:
        ValueError: for a seed out of range, a batch larger than the training split, or a split
            that is needed and empty.
        NonFiniteLossError: if the loss diverges.
    """
    check(Seed, seed, "seed")
    engine = engine or best_engine()
    cuda = [engine.device] if engine.device.startswith("cuda") else []
    history, interrupted, started = [], False, time.perf_counter()
    with (
        ONE_RUN,
        pinned(engine),
        torch.random.fork_rng(devices=cuda),
        side_stream(engine.device),
    ):
        train, validation = data.train, None
        if recipe.validation:
            train, validation = split_validation(train, recipe.held_out)
        test = data.test if measure_test else None
        _check_sizes(recipe, train, validation, test)
        keep_memory()
        torch.manual_seed(seed)
        trainer = Trainer(config, recipe, train, engine, seed)
        trainer.progress = progress
        validation, test = _on(engine, validation), _on(engine, test)
        try:
            for epoch in range(1, recipe.epochs + 1):
                history.append(trainer.epoch(epoch, validation, test))
                report(history[-1])
        except KeyboardInterrupt:
            interrupted = True
        return Trained(
            history,
            trainer.plain_network(),
            trainer.statistics,
            engine,
            trainer.confusion,
            interrupted,
            time.perf_counter() - started,
        )


class Trainer:
    """One run's state: network, optimizer, schedule, average, data on the device."""

    def __init__(self, config: Config, recipe: Recipe, train: Split, engine: Engine, seed: int):
        self.config, self.recipe, self.engine = config, recipe, engine
        self.network = build(config)
        if engine.fused:
            fast.fuse(self.network)
        self.network.to(engine.device, memory_format=engine.memory_format)
        self.images, self.labels = train.images.to(engine.device), train.labels.to(engine.device)
        self.statistics = pixel_statistics(train.images)
        self.steps_per_epoch = -(-len(train) // recipe.batch_size)
        self.generator = torch.Generator(engine.device).manual_seed(seed)
        self.parameters = list(self.network.parameters())
        self.optimizer = _optimizer(self.parameters, recipe, engine)
        self.plateau = None
        if recipe.schedule.startswith("plateau"):
            self.plateau = lr_scheduler.ReduceLROnPlateau(
                self.optimizer, factor=recipe.decay, patience=recipe.patience
            )
        self.average = ModelEMA(self.network, recipe) if recipe.ema_decay else None
        self.measured = self.average.network if self.average else self.network
        self.confusion: list[list[int]] | None = None  # of the test set, as last measured
        self.sums = torch.zeros(2, device=engine.device)  # of an epoch: losses, hits
        self.progress: Callable[[float], None] = lambda epochs: None
        self.one_step = self.step
        if engine.graph:
            self.one_step = GraphedStep(self.step, self.optimizer, recipe.batch_size)

    def epoch(self, epoch: int, validation: Split | None, test: Split | None) -> EpochRow:
        """Train epoch number `epoch` (from 1), then measure."""
        started = time.perf_counter()
        first_rate = self.set_rate((epoch - 1) * self.steps_per_epoch)
        train_loss, train_accuracy = self.train_epoch(epoch)
        checked_on = measured = (None, None)
        if validation is not None:
            checked_on, _ = self._measure(validation)
        if test is not None:
            measured, self.confusion = self._measure(test)
        losses = [loss for loss in (checked_on[0], measured[0]) if loss is not None]
        if not all(map(math.isfinite, losses)):
            raise NonFiniteLossError(f"loss is not finite after epoch {epoch}; {REMEDY}")
        if self.plateau:
            on_test = self.recipe.schedule == "plateau on test"
            self.plateau.step((measured if on_test else checked_on)[0])
        seconds = time.perf_counter() - started
        return EpochRow(
            epoch, first_rate, train_loss, train_accuracy, *checked_on, *measured, seconds
        )

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the training split; returns mean loss and accuracy in percent.

        Raises:
            NonFiniteLossError: if the loss of a step is infinite or NaN.
        """
        size, count = self.recipe.batch_size, len(self.labels)
        order = torch.randperm(count, generator=self.generator, device=self.engine.device)
        warps, losses = None, []
        if self.recipe.augments:
            calm = epoch > self.recipe.epochs - self.recipe.calm_epochs
            strength = self.recipe.calm if calm else 1.0
            warps = sample_affine(self.recipe, count, self.generator, strength)
        self.sums.zero_()
        self.network.train()
        for step in range(self.steps_per_epoch):
            self.set_rate((epoch - 1) * self.steps_per_epoch + step)
            if step % PROGRESS == 0:
                self.progress(epoch - 1 + step / self.steps_per_epoch)
            chosen = slice(step * size, (step + 1) * size)
            losses.append(self.one_step(order[chosen], None if warps is None else warps[chosen]))
        finite = torch.stack(losses).isfinite()  # the epoch's one wait for the device
        if not finite.all():
            step = int((~finite).nonzero()[0]) + 1
            raise NonFiniteLossError(f"loss is not finite at epoch {epoch}, step {step}; {REMEDY}")
        loss_sum, hits = self.sums.tolist()
        return loss_sum / count, 100 * hits / count

    def set_rate(self, step: int) -> float:
        """The learning rate of a step of the run, from 0; only "plateau" sets it by itself."""
        group = self.optimizer.param_groups[0]
        if not self.plateau:
            group["lr"] = learning_rate(self.recipe, step, self.steps_per_epoch)
        return group["lr"]

    def step(self, index: Tensor, warps: Tensor | None) -> Tensor:
        """One optimizer step on the images at `index`; returns the loss, on the device."""
        images, labels = self._batch(index, warps), self.labels[index]
        with self.engine.autocast():
            log_probabilities = self.network(images).float()
        torch.clear_autocast_cache()  # an outer autocast would keep last step's weights
        # Not nll_loss: a second log-softmax changes nothing, but the last bits of every record.
        loss = F.cross_entropy(log_probabilities, labels)
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad, without its bookkeeping
        loss.backward()
        self.optimizer.step()
        if self.average:
            self.average.update()
        hits = (log_probabilities.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach() * len(index), hits])
        return loss.detach()

    def _batch(self, index: Tensor, warps: Tensor | None) -> Tensor:
        if warps is not None and self.engine.device.startswith("cpu") and fast.usable():
            images = fast.augmented_batch(self.images, index, warps, self.statistics)
        else:
            images = batch(self.images, index, warps, self.statistics)
        return images.contiguous(memory_format=self.engine.memory_format)

    def _measure(self, split: Split) -> tuple[tuple[float, float], list[list[int]]]:
        """Loss and accuracy (percent) of the measured weights, in float32, and the confusion."""
        log_probabilities = predict(self.measured, split.images, self.statistics)
        loss = float(F.nll_loss(log_probabilities, split.labels))
        confusion = confusion_matrix(log_probabilities, split.labels)
        return (loss, accuracy(confusion)), confusion

    def plain_network(self) -> Network | SeparableNetwork:
        """The measured weights in torch's own layers, on the CPU, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            network = build(self.config)
        network.load_state_dict(self.measured.state_dict())
        return network.eval()


class ModelEMA:
    """An exponential moving average of weights and batch statistics.

    Like torch.optim.swa_utils.AveragedModel, which counts its updates in a tensor that it copies
    to the device at every step; a plain number needs no such wait.
    """

    def __init__(self, network: nn.Module, recipe: Recipe):
        self.network = copy.deepcopy(network)
        self.recipe, self.updates = recipe, 0
        self.tensors, self.current = _floating(self.network), _floating(network)

    def update(self) -> None:
        """Take the weights after one more step in; the first ones are taken as they are."""
        decay = self.recipe.ema_decay if self.updates else 0.0
        if decay:
            torch._foreach_lerp_(self.tensors, self.current, 1 - decay)
        else:
            torch._foreach_copy_(self.tensors, self.current)
        self.updates += 1


def _floating(network: nn.Module) -> list[Tensor]:
    tensors = itertools.chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


def _optimizer(parameters: list, recipe: Recipe, engine: Engine) -> torch.optim.Optimizer:
    fused = torch.device(engine.device).type in ("cpu", "cuda")
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common, capturable=engine.graph)
    momentum = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    return torch.optim.SGD(parameters, **common, **momentum)


def _check_sizes(recipe: Recipe, train: Split, validation: Split | None, test: Split | None):
    if recipe.batch_size > len(train):
        raise ValueError(
            f"batch_size is {recipe.batch_size} but there are {len(train)} training images; "
            f"choose a batch_size of {len(train)} or less"
        )
    if validation is not None and not len(validation):
        raise ValueError(
            f"{len(train)} images are too few to hold some out; "
            "choose a recipe with validation=False, or use more images"
        )
    if test is not None and not len(test):
        raise ValueError("the test split is empty; pass measure_test=False")
    if test is None and recipe.schedule == "plateau on test":
        raise ValueError('schedule "plateau on test" needs measure_test=True')


def _on(engine: Engine, split: Split | None) -> Split | None:
    """The split with its images on the engine's device; labels stay, figures are added up there."""
    return Split(split.images.to(engine.device), split.labels) if split else None
