"""Seconds of a training epoch: conventional, one run of ours on all cores, a sweep of ours.

Every way is timed once per round, one after the other, so that a ratio is taken within a round.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import psutil
import torch
from dask.system import CPU_COUNT

from benchmarks import conventional
from study.experiments import get_experiment
from utils.data import load_mnist
from utils.device import best_engine
from utils.training import Trained, fit

CONVENTIONAL_STEPS = 60  # timed per round
STEPS = 240  # the same of ours, so that every way is timed for some seconds
EPOCH_IMAGES = 55_000
BUSY = 15  # percent of the processor that other programs may use


def train_steps(model: str, steps: int, epochs: int, precision: str | None = None) -> Trained:
    """Train an experiment on so many batches an epoch, on the CPU, without any evaluation.

    The rate is constant: a schedule costs no time, but a plateau needs validation images.
    """
    experiment, data = get_experiment(model), load_mnist()
    recipe = replace(experiment.recipe, schedule="constant", validation=False, epochs=epochs)
    few = replace(data, train=data.train.part(slice(steps * recipe.batch_size)))
    engine = best_engine("cpu", precision)
    return fit(experiment.config, recipe, few, 0, engine=engine, measure_test=False)


def our_seconds_per_step(model: str, threads: int, precision: str | None = None) -> float:
    """Mean seconds of a training step in the second epoch; the first one warms up."""
    torch.set_num_threads(threads)
    return train_steps(model, STEPS, 2, precision).history[-1].seconds / STEPS


def conventional_seconds_per_step(model: str, threads: int, workers: int = 0) -> float:
    """The same of the conventional pipeline, with so many loader workers."""
    torch.set_num_threads(threads)
    made = get_experiment(model)
    return conventional.seconds_per_step(made.config, made.recipe, workers, CONVENTIONAL_STEPS)


def at_once(pool: ProcessPoolExecutor, seconds_per_step, model: str, count: int) -> float:
    """Seconds per step and run when `count` processes of one thread train at once."""
    futures = [pool.submit(seconds_per_step, model, 1) for _ in range(count)]
    return max(future.result() for future in futures) / count


def one_round(model: str, pool: ProcessPoolExecutor) -> dict[str, float]:
    """Seconds per epoch of every way to train the model."""
    cores, theirs, ours = CPU_COUNT, conventional_seconds_per_step, our_seconds_per_step
    seconds = {f"conventional_{n}": theirs(model, cores, n) for n in range(3)}
    seconds |= {
        "run": ours(model, cores),
        "conventional_at_once": at_once(pool, theirs, model, cores),
        "sweep": at_once(pool, ours, model, cores),
        "run_float32": ours(model, cores, "float32"),
        "one_thread": at_once(pool, ours, model, 1),
    }
    steps_per_epoch = EPOCH_IMAGES / get_experiment(model).recipe.batch_size
    return {name: step * steps_per_epoch for name, step in seconds.items()}


def measure(models: tuple[str, ...], rounds: int) -> dict[str, dict[str, list[float]]]:
    """All rounds of all models, interleaved: {model: {way: seconds per epoch, one per round}}."""
    found: dict[str, dict[str, list[float]]] = {model: {} for model in models}
    with ProcessPoolExecutor(CPU_COUNT, mp_context=multiprocessing.get_context("spawn")) as pool:
        for round_ in range(rounds + 1):  # the first one compiles and fills caches
            for model in models:
                wait_until_quiet()
                seconds = one_round(model, pool)
                line = "  ".join(f"{name} {value:.2f}" for name, value in seconds.items())
                print(f"round {round_} of {rounds}, model {model}, s per epoch: {line}", flush=True)
                for name, value in seconds.items() if round_ else ():
                    found[model].setdefault(name, []).append(value)
    return found


def wait_until_quiet(tries: int = 20) -> None:
    """Wait until other programs leave the processor alone; gives up with a warning."""
    for _ in range(tries):
        load = psutil.cpu_percent(interval=1)
        if load <= BUSY:
            return
        print(f"others use {load:.0f} % of the processor; waiting", file=sys.stderr, flush=True)
        time.sleep(4)
    print("this machine stays busy: the figures are upper bounds", file=sys.stderr, flush=True)


KINDS = {  # of operations, by parts of the profiler's names
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("mkldnn_convolution", "_convolution"),
    "batch norm, ReLU, dropout": ("BatchNormAct", "ReLUDropout", "BatchNorm", "batch_norm"),
    "max pooling": ("MaxPool", "max_pool"),
    "all else": ("",),
}


def profile(model: str, steps: int = 40) -> dict[str, float]:
    """Shares of a step's processor time on one thread: {kind of operation: 0..1}."""
    torch.set_num_threads(1)
    train_steps(model, 5, 1)  # warms up
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiled:
        train_steps(model, steps, 1)
    times = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages():
        kind = next(kind for kind, marks in KINDS.items() if any(m in event.key for m in marks))
        times[kind] += event.self_cpu_time_total
    return {kind: taken / sum(times.values()) for kind, taken in times.items()}
