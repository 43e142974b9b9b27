"""The only training loop of the project: `fit` is a pure function of its arguments.

Images stay uint8 and on the device; a batch is indexed, augmented and normalised there. No step
waits for the device: losses and correct answers add up in tensors that are read after the epoch.
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
from models import Config, Network, SeparableNetwork, build
from utils.augmentation import batch, distort, normalise, sample_affine
from utils.data import Dataset, Split, pixel_statistics, split_validation
from utils.device import Engine, best_engine, exclusive
from utils.evaluation import accuracy, confusion_matrix, predict
from utils.recipes import Recipe, learning_rate, optimizer
from utils.validation import NotNegative, OneLineError, Percent, Positive, Seed, check, checked

REMEDY = "lower the learning rate, or check the inputs"


class NonFiniteLossError(OneLineError, RuntimeError):
    """The loss became infinite or NaN."""


@checked
class EpochRow:
    """What one epoch measured. Accuracies in percent; None where there was no such split.

    Train loss and accuracy are the running figures of the epoch: with dropout and augmentation,
    while the weights change. Validation and test figures are measured in float32 at the epoch's
    end, with the averaged weights where the recipe has an EMA. Losses are in nats.
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
    # In torch's own layers, on the CPU, in evaluation mode; the averaged weights if there are any.
    network: Network | SeparableNetwork
    statistics: tuple[float, float]  # mean and std of the pixels (scale 0..1) to normalise with
    engine: Engine
    confusion: list[list[int]] | None  # [true][predicted] after the last epoch, if measured
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
    expect: Callable[[float], None] = lambda seconds: None,
) -> Trained:
    """Train one network by one recipe; on a CPU the same arguments give the same bits.

    Bit for bit holds on one machine with one `Engine`; on CUDA the rounding may differ.
    The test set is measured at the end of each epoch and used for nothing else, but by the schedule
    "plateau on test"; `measure_test=False` leaves it out.

    Args:
        config: the network.
        recipe: how to train it.
        data: from `utils.data.load_mnist`.
        seed: for the initial weights, batch order, augmentation and dropout.
        engine: where to compute; default `best_engine()`.
        measure_test: whether to measure the test split after each epoch.
        report: called with each finished epoch.
        expect: called once, with the seconds that it will take, by its first steps.

    Raises:
        ValueError: for a seed out of range, or a split that is too small.
        NonFiniteLossError: if the loss diverges.
    """
    check(Seed, seed, "seed")
    engine = engine or best_engine()
    started = time.perf_counter()
    with exclusive(engine):
        train, validation = data.train, None
        if recipe.validation:
            train, validation = split_validation(train, recipe.held_out)
        test = data.test if measure_test else None
        _check_sizes(recipe, train, validation, test)
        torch.manual_seed(seed)
        trainer = Trainer(config, recipe, train, engine, seed)
        trainer.expect = expect
        validation, test = (  # labels stay on the CPU, where predictions are compared with them
            split and Split(split.images.to(engine.device), split.labels)
            for split in (validation, test)
        )
        history = []
        for epoch in range(1, recipe.epochs + 1):
            history.append(trainer.epoch(epoch, validation, test))
            report(history[-1])
        network, seconds = trainer.plain_network(), time.perf_counter() - started
        return Trained(history, network, trainer.statistics, engine, trainer.confusion, seconds)


class Trainer:
    """One run's state: network, optimizer, schedule, EMA, data on the device."""

    def __init__(self, config: Config, recipe: Recipe, train: Split, engine: Engine, seed: int):
        self.config, self.recipe, self.engine = config, recipe, engine
        self.images, self.labels = train.images.to(engine.device), train.labels.to(engine.device)
        self.statistics = pixel_statistics(train.images)
        self.steps_per_epoch = -(-len(train) // recipe.batch_size)
        self.generator = torch.Generator(engine.device).manual_seed(seed)
        self.network = build(config)
        self.make_batch, self.expect, self.began = batch, lambda seconds: None, time.perf_counter()
        # Compiled layers and augmentation are switched on here alone; results agree up to rounding.
        if engine.fused:
            fast.fuse(self.network)
        if recipe.distorts:
            self.make_batch = self._distorted_batch
        elif recipe.augments and engine.device.startswith("cpu") and fast.usable():
            self.make_batch = fast.augmented_batch
        self.network.to(engine.device, memory_format=engine.memory_format)
        self.parameters = list(self.network.parameters())
        self.optimizer = optimizer(self.parameters, recipe, engine.device)
        self.plateau = None
        if recipe.schedule.startswith("plateau"):
            self.plateau = lr_scheduler.ReduceLROnPlateau(
                self.optimizer, factor=recipe.decay, patience=recipe.patience
            )
        self.ema = ModelEMA(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.measured = self.ema.network if self.ema else self.network
        self.confusion: list[list[int]] | None = None  # of the test set, as last measured
        self.sums = torch.zeros(2, device=engine.device)  # of an epoch: losses, correct answers

    def epoch(self, epoch: int, validation: Split | None, test: Split | None) -> EpochRow:
        """Train epoch number `epoch` (from 1), then measure."""
        started = time.perf_counter()
        first_rate = self.set_rate((epoch - 1) * self.steps_per_epoch)
        train_loss, train_accuracy = self.train_epoch(epoch)
        validated = tested = (None, None)
        if validation is not None:
            validated, _ = self._measure(validation)
        if test is not None:
            tested, self.confusion = self._measure(test)
        if self.plateau:
            on_test = self.recipe.schedule == "plateau on test"
            self.plateau.step((tested if on_test else validated)[0])
        seconds = time.perf_counter() - started
        return EpochRow(epoch, first_rate, train_loss, train_accuracy, *validated, *tested, seconds)

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the training split; returns mean loss and accuracy in percent.

        A loss that is infinite or NaN is a NonFiniteLossError.
        """
        size, count = self.recipe.batch_size, len(self.labels)
        order = torch.randperm(count, generator=self.generator, device=self.engine.device)
        matrices, losses = None, []
        if self.recipe.augments:
            reduced = epoch > self.recipe.epochs - self.recipe.calm_epochs
            self.magnitude = self.recipe.calm if reduced else 1.0
            matrices = sample_affine(self.recipe, count, self.generator, self.magnitude)
        self.sums.zero_()
        self.network.train()
        for step in range(self.steps_per_epoch):
            if epoch == 1:
                self._time(step)
            self.set_rate((epoch - 1) * self.steps_per_epoch + step)
            chosen = slice(step * size, (step + 1) * size)
            losses.append(self.step(order[chosen], None if matrices is None else matrices[chosen]))
        finite = torch.stack(losses).isfinite()  # here alone the CPU waits for the device
        if not finite.all():
            step = int((~finite).nonzero()[0]) + 1
            raise NonFiniteLossError(f"loss is not finite at epoch {epoch}, step {step}; {REMEDY}")
        loss_sum, n_correct = self.sums.tolist()
        return loss_sum / count, 100 * n_correct / count

    def _time(self, step: int) -> None:
        """Tell `expect` how long the training will take, by some of its first steps."""
        first, last = self.steps_per_epoch // 20, self.steps_per_epoch // 10
        if step in (first, last):
            self.sums.tolist()  # waits for the device
            seconds = time.perf_counter() - self.began
            self.began += seconds
        if step == last:
            steps = self.recipe.epochs * self.steps_per_epoch
            self.expect(seconds / max(last - first, 1) * steps)

    def step(self, index: Tensor, matrices: Tensor | None) -> Tensor:
        """One optimizer step on the images at `index`; returns the loss, on the device."""
        images = self.make_batch(self.images, index, matrices, self.statistics)
        images = images.contiguous(memory_format=self.engine.memory_format)
        labels = self.labels[index]
        with self.engine.autocast():
            log_probabilities = self.network(images).float()
        torch.clear_autocast_cache()  # else an outer autocast would reuse old weights
        # nll_loss would do, but would no longer match the records bit for bit.
        loss = F.cross_entropy(log_probabilities, labels)
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad, without its bookkeeping
        loss.backward()
        self.optimizer.step()
        if self.ema:
            self.ema.update()
        n_correct = (log_probabilities.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach() * len(index), n_correct])
        return loss.detach()

    def _distorted_batch(self, images, index, matrices, statistics) -> Tensor:
        """As `utils.augmentation.batch`, with the recipe's other strokes."""
        picked = images[index].unsqueeze(1).float() / 255
        changed = distort(picked, matrices, self.recipe, self.generator, self.magnitude)
        return normalise(changed, statistics)

    def set_rate(self, step: int) -> float:
        """The learning rate of a step of the run, from 0; only a plateau schedule sets its own."""
        group = self.optimizer.param_groups[0]
        if not self.plateau:
            group["lr"] = learning_rate(self.recipe, step, self.steps_per_epoch)
        return group["lr"]

    def _measure(self, split: Split) -> tuple[tuple[float, float], list[list[int]]]:
        """Loss and accuracy (percent) of the measured weights, in float32, and the confusion."""
        log_probabilities = predict(self.measured, split.images, self.statistics)
        loss = float(F.nll_loss(log_probabilities, split.labels))
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"loss is not finite on held-out or test images; {REMEDY}")
        confusion = confusion_matrix(log_probabilities, split.labels)
        return (loss, accuracy(confusion)), confusion

    def plain_network(self) -> Network | SeparableNetwork:
        """The measured weights in torch's own layers, on the CPU, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            network = build(self.config)
        network.load_state_dict(self.measured.state_dict())
        return network.eval()


class ModelEMA:
    """An exponential moving average (EMA) of weights and batch statistics.

    Like torch.optim.swa_utils.AveragedModel, which counts its updates in a tensor that it copies
    to the device at every step; a plain number needs no such wait. The first weights are taken as
    they are.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network)
        self.decay, self.updates = decay, 0
        self.tensors, self.current = (
            [
                t.detach()
                for t in itertools.chain(n.parameters(), n.buffers())
                if t.is_floating_point()
            ]
            for n in (self.network, network)
        )

    def update(self) -> None:
        """Include the weights after one more step."""
        if self.updates:
            torch._foreach_lerp_(self.tensors, self.current, 1 - self.decay)
        else:
            torch._foreach_copy_(self.tensors, self.current)
        self.updates += 1


def _check_sizes(recipe: Recipe, train: Split, validation: Split | None, test: Split | None):
    if recipe.batch_size > len(train):
        raise ValueError(
            f"batch_size is {recipe.batch_size} but there are {len(train)} training images; "
            f"choose a batch_size of {len(train)} or less"
        )
    if validation is not None and not len(validation):
        raise ValueError(f"{len(train)} images are too few to hold some out; use more images")
    if test is not None and not len(test):
        raise ValueError("the test split is empty; pass measure_test=False")
    if test is None and recipe.schedule == "plateau on test":
        raise ValueError('schedule "plateau on test" needs measure_test=True')
