"""The only training loop of the project: `fit` is a pure function of its arguments.

Images stay uint8 and resident on the device; a batch is indexed, warped and normalised there. No
step waits for the device: losses and hits add up in tensors that are read once per epoch.
"""

import contextlib
import copy
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models import Network, NetworkConfig, build
from utils.augment import batch, draw_warps, normalise
from utils.data import Dataset, Split, pixel_statistics, split_validation
from utils.experiments import Recipe
from utils.layers import set_fused

ENGINE = 2  # raised whenever the same run would give other numbers; every record carries it
EVALUATION_BATCH = {"cpu": 200}  # images; no effect on the figures
ACCELERATOR_BATCH = 5_000  # the same elsewhere, where every launch costs


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; `history` holds the epochs completed before."""

    def __init__(self, epoch: int, step: int, history: list["EpochRow"]):
        super().__init__(
            f"loss is not finite at epoch {epoch}, step {step}; the {len(history)} epochs before "
            "are kept. Lower the learning rate, or check the inputs"
        )
        self.history = history


@dataclass(frozen=True)
class EpochRow:
    """What one epoch measured. Accuracies in percent; None where there was no such split.

    Train loss and accuracy are the running figures of the epoch: dropout and warps on, weights
    moving. Validation and test figures are taken in float32 at the epoch's end, on the averaged
    weights where the recipe averages them.
    """

    epoch: int  # from 1
    learning_rate: float  # of the epoch's first step
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    seconds: float  # training and evaluation


@dataclass(frozen=True)
class Engine:
    """Where and how a run computes; recorded, because it decides the last bits of the result."""

    device: str = "cpu"
    precision: str = "float32"  # of the forward and backward pass; weights are always float32
    threads: int = 1  # CPU threads
    layout: str = "contiguous"  # memory format of the activations
    fused: bool = False  # CPU only: the compiled passes of utils/kernels.py, not torch's own

    @property
    def memory_format(self) -> torch.memory_format:
        """`layout` as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format


@dataclass
class Run:
    """What `fit` returns: the history, the weights it was measured with, and how it ended."""

    history: list[EpochRow]
    network: Network  # on the CPU, in evaluation mode; averaged weights where the recipe averages
    statistics: tuple[float, float]  # mean and SD of the pixels (scale 0..1) it normalises with
    engine: Engine
    confusion: list[list[int]] | None = None  # [true][predicted] after the last epoch; see fit
    interrupted: bool = False
    seconds: float = field(default=0.0)


def best_engine(device: str | None = None, precision: str | None = None) -> Engine:
    """The fastest settings for `device` (default: CUDA, then MPS, then CPU).

    bfloat16 is chosen on CPUs with native bfloat16 instructions, where it is the faster
    (`benchmarks/` measures both); nowhere else has it been measured.

    Raises:
        ValueError: for an unknown precision or a device that is not there.
    """
    if precision not in (None, "float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', not {precision!r}")
    device = device or os.environ.get("MNIST_DEVICE") or _default_device()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here ({reason}); try 'cpu'") from None
    threads = torch.get_num_threads()
    if not device.startswith("cpu"):
        return Engine(device, precision or "float32", threads)
    native_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    precision = precision or ("bfloat16" if native_bf16 else "float32")
    return Engine(device, precision, threads, "channels_last", fused=True)


def reference_engine() -> Engine:
    """The yardstick of the fast one: float32 and torch's own kernels throughout, on the CPU."""
    return Engine("cpu", "float32", torch.get_num_threads())


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def fit(
    config: NetworkConfig,
    recipe: Recipe,
    data: Dataset,
    seed: int,
    *,
    engine: Engine | None = None,
    measure_test: bool = True,
    report: Callable[[EpochRow], None] = lambda row: None,
) -> Run:
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

    Raises:
        ValueError: if a batch is larger than the training split.
        NonFiniteLossError: if the loss diverges; it carries the history.
    """
    engine = engine or best_engine()
    train, validation = split_validation(data.train) if recipe.validation else (data.train, None)
    if recipe.batch_size > len(train):
        raise ValueError(
            f"batch_size is {recipe.batch_size} but there are {len(train)} training images; "
            f"choose a batch_size of {len(train)} or less"
        )
    if measure_test and not len(data.test):
        raise ValueError("the test split is empty; pass measure_test=False")
    test = _on(engine, data.test) if measure_test else None
    validation = _on(engine, validation) if validation else None
    cuda = [engine.device] if engine.device.startswith("cuda") else []
    started = time.perf_counter()
    with torch.random.fork_rng(devices=cuda), _stream(engine):
        torch.manual_seed(seed)
        trainer = _Trainer(config, recipe, train, engine, seed)
        run = Run([], trainer.measured, trainer.statistics, engine)
        try:
            for epoch in range(1, recipe.epochs + 1):
                row = trainer.epoch(epoch, validation, test, run.history)
                run.history.append(row)
                report(row)
        except KeyboardInterrupt:
            run.interrupted = True
    run.seconds = time.perf_counter() - started
    if measure_test and trainer.log_probabilities is not None:
        run.confusion = confusion_matrix(trainer.log_probabilities, data.test.labels)
    run.network = copy.deepcopy(trainer.measured).cpu().eval()
    return run


def _on(engine: Engine, split: Split) -> Split:
    """The split with its images on the engine's device; labels stay, figures are added up there."""
    return Split(split.images.to(engine.device), split.labels)


@contextlib.contextmanager
def _stream(engine: Engine):
    """On a CUDA device a stream of its own, because the default one cannot record a graph."""
    if not engine.device.startswith("cuda"):
        yield
        return
    with torch.cuda.device(engine.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)


class _Average:
    """An exponential moving average of weights and batch statistics (torch.optim.swa_utils).

    `AveragedModel` counts its updates in a tensor that it copies to the device at every step; a
    plain number needs no such wait.
    """

    def __init__(self, network: Network, decay: float):
        self.network = copy.deepcopy(network)
        self.started = False
        self.lerp = get_ema_multi_avg_fn(decay)
        self.tensors = _floating_tensors(self.network)

    def update(self, network: Network) -> None:
        """Take the weights after one more step in; the first ones are taken as they are."""
        current = _floating_tensors(network)
        if self.started:
            self.lerp(self.tensors, current, None)
        else:
            torch._foreach_copy_(self.tensors, current)
        self.started = True


def _floating_tensors(network: nn.Module) -> list[Tensor]:
    tensors = itertools.chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


class _GraphedStep:
    """A training step recorded once as a CUDA graph, then replayed: one launch, not hundreds.

    The first steps run as they are, because libraries allocate on first use; so do batches of
    another size, that is, an epoch's last. A graph reads fixed memory: batch and learning rate are
    copied there before each replay.

    Args:
        step: maps index [N] and warps [N, 2, 3] or None to a loss, all on the device.
        optimizer: the one that `step` calls; its learning rate may change between steps.
        size: images per batch.
        record: takes a function without arguments; returns its result's memory and what replays it.
    """

    WARM_UP = 3

    def __init__(self, step: Callable, optimizer: torch.optim.Optimizer, size: int, record=None):
        self.step, self.size = step, size
        self.groups = optimizer.param_groups
        self.record = record or _record_graph
        self.seen = 0
        self.replay: Callable | None = None

    def __call__(self, index: Tensor, warps: Tensor | None) -> Tensor:
        self.seen += 1
        if len(index) != self.size or self.seen <= self.WARM_UP:
            return self.step(index, warps)
        if self.replay is None:
            self._record(index, warps)
        self.index.copy_(index)
        if warps is not None:
            self.warps.copy_(warps)
        self.rate.fill_(self.groups[0]["lr"])
        self.replay()
        return self.loss.clone()

    def _record(self, index: Tensor, warps: Tensor | None) -> None:
        self.index = index.clone()
        self.warps = None if warps is None else warps.clone()
        rate = self.groups[0]["lr"]
        self.rate = torch.tensor(rate, device=index.device)
        self.groups[0]["lr"] = self.rate
        try:
            self.loss, self.replay = self.record(lambda: self.step(self.index, self.warps))
        finally:
            self.groups[0]["lr"] = rate


def _record_graph(function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Capture what `function` launches on the current stream, without running it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        output = function()
    return output, graph.replay


class _Trainer:
    """One run's state: network, optimizer, schedule, average, data on the device."""

    def __init__(
        self, config: NetworkConfig, recipe: Recipe, train: Split, engine: Engine, seed: int
    ):
        self.recipe, self.engine = recipe, engine
        self.network = build(config).to(engine.device, memory_format=engine.memory_format)
        set_fused(self.network, engine.fused)
        self.images, self.labels = train.images.to(engine.device), train.labels.to(engine.device)
        self.statistics = pixel_statistics(train.images)
        self.generator = torch.Generator(engine.device).manual_seed(seed)
        self.parameters = list(self.network.parameters())
        self.optimizer = _optimizer(self.network, recipe)
        steps = -(-len(train) // recipe.batch_size)
        self.schedule = _schedule(self.optimizer, recipe, steps)
        self.average = _Average(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.measured = self.average.network if self.average else self.network
        self.log_probabilities: Tensor | None = None  # of the test set, as last measured
        self.sums = torch.zeros(2, device=engine.device)  # of an epoch: losses, hits
        self.step = self._step
        # "onecycle" moves the momentum, too, which a graph would freeze.
        if engine.device.startswith("cuda") and recipe.schedule != "onecycle":
            self.step = _GraphedStep(self._step, self.optimizer, recipe.batch_size)

    def epoch(
        self, epoch: int, validation: Split | None, test: Split | None, history: list[EpochRow]
    ) -> EpochRow:
        """Train one epoch, measure, and move an epoch-wise schedule."""
        started = time.perf_counter()
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train(epoch, history)
        measure = [self._measure(split) if split else (None, None) for split in (validation, test)]
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(measure[0][0])
        elif self.recipe.schedule == "step":
            self.schedule.step()
        seconds = time.perf_counter() - started
        return EpochRow(
            epoch, learning_rate, train_loss, train_accuracy, *measure[0], *measure[1], seconds
        )

    def _train(self, epoch: int, history: list[EpochRow]) -> tuple[float, float]:
        """One pass over the training split; returns mean loss and accuracy in percent."""
        recipe, size = self.recipe, self.recipe.batch_size
        count = len(self.labels)
        order = torch.randperm(count, generator=self.generator, device=self.engine.device)
        warps = draw_warps(recipe, count, self.generator) if recipe.warps else None
        losses = []
        self.sums.zero_()
        self.network.train()
        for start in range(0, count, size):
            chosen = slice(start, start + size)
            losses.append(self.step(order[chosen], None if warps is None else warps[chosen]))
            if recipe.schedule in ("linear", "onecycle"):
                self.schedule.step()
        finite = torch.stack(losses).isfinite()  # the epoch's one wait for the device
        if not finite.all():
            raise NonFiniteLossError(epoch, int((~finite).nonzero()[0]) + 1, history)
        loss_sum, hits = self.sums.tolist()
        return loss_sum / count, 100 * hits / count

    def _step(self, index: Tensor, warps: Tensor | None) -> Tensor:
        """One optimizer step on the images at `index`; returns the loss, on the device."""
        images = batch(self.images, index, warps, self.statistics)
        labels = self.labels[index]
        with _autocast(self.engine):
            log_probabilities = self.network(
                images.contiguous(memory_format=self.engine.memory_format)
            ).float()
        # Cross-entropy's own log-softmax leaves log-probabilities as they are.
        loss = F.cross_entropy(
            log_probabilities, labels, label_smoothing=self.recipe.label_smoothing
        )
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad, without its bookkeeping
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        hits = (log_probabilities.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach() * len(index), hits])
        return loss.detach()

    def _measure(self, split: Split) -> tuple[float, float]:
        """Loss and accuracy (percent) of the measured weights, in float32."""
        log_probabilities = predict(self.measured, split.images, self.statistics)
        self.log_probabilities = log_probabilities
        loss = F.nll_loss(log_probabilities, split.labels)
        hits = (log_probabilities.argmax(1) == split.labels).sum()
        return float(loss), 100 * int(hits) / len(split)


def _autocast(engine: Engine) -> contextlib.AbstractContextManager:
    if engine.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(engine.device).type, torch.bfloat16)


def predict(network: nn.Module, images: Tensor, statistics: tuple[float, float]) -> Tensor:
    """Log-probabilities [N, 10], float32 on the CPU, of uint8 images [N, 28, 28].

    Computed in float32 on the network's device, whatever the precision it was trained in.

    Args:
        network: its mode is set to evaluation.
        images: raw pixels; they are normalised here.
        statistics: mean and SD of the pixels on the scale 0..1, as in `Run.statistics`.
    """
    network.eval()
    device = next(network.parameters()).device
    size = EVALUATION_BATCH.get(device.type, ACCELERATOR_BATCH)
    with torch.inference_mode(), _exact_float32():
        parts = [
            network(normalise(part.unsqueeze(1).to(device).float() / 255, statistics))
            for part in images.split(size)
        ]
        return torch.cat(parts).cpu()


@contextlib.contextmanager
def _exact_float32():
    """No TF32 in CUDA's convolutions, which would round float32 to ten bits of mantissa."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def confusion_matrix(log_probabilities: Tensor, labels: Tensor) -> list[list[int]]:
    """[10][10] counts: row = true digit, column = predicted digit."""
    pairs = labels * 10 + log_probabilities.argmax(1)
    return torch.bincount(pairs, minlength=100).reshape(10, 10).tolist()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    device = next(network.parameters()).device.type
    fused = device in ("cpu", "cuda")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=fused,
            capturable=device == "cuda",
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int):
    """The scheduler for the recipe; "linear" and "onecycle" move by step, others by epoch."""
    total = steps * recipe.epochs
    match recipe.schedule:
        case "plateau":
            return lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=recipe.decay, patience=recipe.patience
            )
        case "step":
            return lr_scheduler.MultiStepLR(optimizer, list(recipe.milestones), recipe.decay)
        case "onecycle":
            return lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=total, pct_start=recipe.warmup
            )
        case "linear":
            return lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total))
    return None


def learning_rates(recipe: Recipe, images: int) -> list[float]:
    """The learning rate of every step of a run on `images` images, for a plot of the schedule.

    Raises:
        ValueError: for "plateau", whose steps depend on the run; read its history instead.
    """
    if recipe.schedule == "plateau":
        raise ValueError("the plateau schedule depends on the run; read History's learning_rate")
    steps = -(-images // recipe.batch_size)
    optimizer = _optimizer(nn.Linear(1, 1), recipe)
    schedule = _schedule(optimizer, recipe, steps)
    rates = []
    for _, step in itertools.product(range(recipe.epochs), range(1, steps + 1)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if recipe.schedule in ("linear", "onecycle") or (
            recipe.schedule == "step" and step == steps
        ):
            schedule.step()
    return rates
