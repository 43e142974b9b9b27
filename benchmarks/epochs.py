"""Seconds of a training epoch: conventional, one run of ours on all cores, a sweep of ours.

Every way is timed once per round, one after the other, so that a ratio is taken within a round.
The yardstick gets the same chance as ours: the best of 0, 1 and 2 loader workers, and as many
conventional runs at once as there are cores where ours are a sweep.
"""

import multiprocessing
import sys
import time
import timeit
from concurrent.futures import ProcessPoolExecutor

import psutil
import torch
from dask.system import CPU_COUNT

from benchmarks import conventional
from models import MODELS, NetworkConfig
from study.experiments import get_experiment
from utils.augmentation import sample_affine
from utils.data import load_mnist, split_validation
from utils.device import best_engine
from utils.layers import layer_rows
from utils.recipes import Recipe
from utils.training import Trainer

CONVENTIONAL_STEPS = 60  # timed per round
STEPS = 240  # the same of ours, so that every way is watched for some seconds
WARM_UP = 10  # steps before
EPOCH_IMAGES = 55_000
LOADER_WORKERS = (0, 1, 2)
BUSY = 15  # percent of the processor that others may use
_trainers: dict[tuple, Trainer] = {}  # of this process


def recipe_of(model: int) -> Recipe:
    """The recipe of one of the ten models."""
    return get_experiment(model).recipe


def trainer(model: int, precision: str | None, threads: int) -> Trainer:
    """A trainer of this process, on the training split of 55,000 images."""
    key = model, precision, threads
    torch.set_num_threads(threads)
    if key not in _trainers:
        train, _ = split_validation(load_mnist().train)
        engine = best_engine("cpu", precision)
        _trainers[key] = Trainer(MODELS[model], recipe_of(model), train, engine, seed=0)
    return _trainers[key]


def our_seconds_per_step(ours: Trainer, start_at: float = 0.0) -> float:
    """Mean seconds of a training step of `fit`; waits, warmed up, for the wall time `start_at`."""
    images, labels, size = ours.images, ours.labels, ours.recipe.batch_size
    steps_per_epoch = ours.steps_per_epoch
    try:
        for steps in (WARM_UP, STEPS):
            ours.images, ours.labels = images[: size * steps], labels[: size * steps]
            ours.steps_per_epoch = steps
            if steps == STEPS:
                time.sleep(max(0.0, start_at - time.time()))
            started = time.perf_counter()
            ours.train_epoch(1)
        return (time.perf_counter() - started) / STEPS
    finally:
        ours.images, ours.labels, ours.steps_per_epoch = images, labels, steps_per_epoch


def _our_step(model: int, start_at: float) -> float:
    return our_seconds_per_step(trainer(model, None, 1), start_at)


def _conventional_step(model: int, start_at: float) -> float:
    torch.set_num_threads(1)
    arguments = MODELS[model], recipe_of(model), 0, CONVENTIONAL_STEPS
    return conventional.seconds_per_step(*arguments, start_at)


def at_once(pool: ProcessPoolExecutor, step, model: int, count: int, lead: float) -> float:
    """Seconds per step and run when `count` processes of one thread train at once.

    Args:
        pool: of `count` processes or more.
        step: `_our_step` or `_conventional_step`.
        model: which of the ten.
        count: of processes.
        lead: seconds until all start together, warmed up.
    """
    start_at = time.time() + lead
    futures = [pool.submit(step, model, start_at) for _ in range(count)]
    return max(future.result() for future in futures) / count


def one_round(model: int, pool: ProcessPoolExecutor, full: bool) -> dict[str, float]:
    """Seconds per epoch of every way to train the model; the slow, unpaired ones if `full`."""
    cores = CPU_COUNT
    config, recipe = MODELS[model], recipe_of(model)
    torch.set_num_threads(cores)
    seconds = {
        f"conventional_{workers}": conventional.seconds_per_step(
            config, recipe, workers, CONVENTIONAL_STEPS
        )
        for workers in LOADER_WORKERS
    }
    seconds["run"] = our_seconds_per_step(trainer(model, None, cores))
    seconds["conventional_at_once"] = at_once(pool, _conventional_step, model, cores, 3)
    seconds["sweep"] = at_once(pool, _our_step, model, cores, 2)
    if full:
        seconds["run_float32"] = our_seconds_per_step(trainer(model, "float32", cores))
        seconds["one_thread"] = at_once(pool, _our_step, model, 1, 1)
    return {name: step * EPOCH_IMAGES / recipe.batch_size for name, step in seconds.items()}


def measure(models: tuple[int, ...], rounds: int, full: bool) -> dict[int, dict[str, list[float]]]:
    """All rounds of all models, interleaved: {model: {way: seconds per epoch, one per round}}."""
    found: dict[int, dict[str, list[float]]] = {model: {} for model in models}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CPU_COUNT, mp_context=spawn) as pool:
        for round_ in range(rounds + 1):  # the first one compiles and fills caches
            for model in models:
                wait_until_quiet()
                seconds = one_round(model, pool, full)
                line = "  ".join(f"{name} {value:.2f}" for name, value in seconds.items())
                name = f"round {round_} of {rounds}" if round_ else "warming up"
                print(f"{name}, model {model}, s per epoch: {line}", flush=True)
                for name, value in seconds.items():
                    if round_:
                        found[model].setdefault(name, []).append(value)
    return found


def wait_until_quiet(tries: int = 20) -> None:
    """Return when nobody else uses the processor; says so while it waits, and gives up in time."""
    for _ in range(tries):
        load = psutil.cpu_percent(interval=1)
        if load <= BUSY:
            return
        print(f"others use {load:.0f} % of the processor; waiting", file=sys.stderr, flush=True)
        time.sleep(4)
    print("this machine stays busy: the figures are upper bounds", file=sys.stderr, flush=True)


def training_macs(config: NetworkConfig) -> int:
    """Multiply-accumulates of forward and backward pass on one image, convolutions only.

    A convolution's backward pass takes twice its forward pass, gradients of weights and of inputs;
    the first one needs none of its inputs.
    """
    work = [row.multiplications for row in layer_rows(config) if row.multiplications]
    return 3 * sum(work) - work[0]


def best_seconds(function) -> float:
    """Fastest of ten calls, seconds."""
    return min(timeit.repeat(function, number=1, repeat=10))


def peaks() -> dict[str, float]:
    """The machine's limits on all cores, in the precisions that are trained in.

    Matmul of 2048 x 2048 in 10^9 operations a second; a copy of 256 MB in 10^9 bytes a second,
    read and written.
    """
    torch.set_num_threads(CPU_COUNT)
    found = {}
    for name in sorted({"float32", best_engine("cpu").precision}):
        a = torch.randn(2048, 2048).to(getattr(torch, name))
        found[f"{name}_gflops"] = 2 * 2048**3 / best_seconds(lambda a=a: a @ a) / 1e9
    source, target = torch.ones(64_000_000), torch.empty(64_000_000)
    found["copy_gbs"] = 2 * 4 * 64_000_000 / best_seconds(lambda: target.copy_(source)) / 1e9
    return found


def profile(model: int, steps: int = 40) -> dict[str, float]:
    """Shares of a step's processor time on one thread: {kind of operation: 0..1}."""
    ours = trainer(model, None, 1)
    size = ours.recipe.batch_size
    warps = sample_affine(ours.recipe, size * steps, ours.generator).split(size)
    batches = list(zip(torch.arange(size * steps).split(size), warps, strict=True))
    for batch in batches[:5]:
        ours.step(*batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiled:
        for batch in batches:
            ours.step(*batch)
    kinds = {
        "convolution, backward": ("convolution_backward",),
        "convolution, forward": ("mkldnn_convolution", "_convolution"),
        "batch norm, ReLU, dropout": ("BatchNormAct", "ReLUDropout", "BatchNorm", "batch_norm"),
        "max pooling": ("MaxPool", "max_pool"),
    }
    times = dict.fromkeys([*kinds, "all else"], 0.0)
    for event in profiled.key_averages():
        for kind, marks in kinds.items():
            if any(mark in event.key for mark in marks):
                times[kind] += event.self_cpu_time_total
                break
        else:
            times["all else"] += event.self_cpu_time_total
    total = sum(times.values())
    return {kind: taken / total for kind, taken in times.items()}
