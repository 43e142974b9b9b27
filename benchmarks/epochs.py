"""Seconds of a training epoch: conventional, one run of ours on all cores, a sweep of ours."""

import os
import statistics
import time
from dataclasses import replace

import torch
from joblib.externals.loky import ProcessPoolExecutor
from torch import nn

from benchmarks import conventional
from models import MODELS, NetworkConfig, build
from utils.data import load_mnist, split_validation
from utils.experiments import EXPERIMENTS, RECIPES, Recipe
from utils.training import _Trainer, best_engine
from utils.workers import keep_memory

MEASURED = (1, 4, 9, 10)  # models
ROUNDS = 5
CONVENTIONAL_STEPS = 60  # timed per round
STEPS = 240  # the same of ours, so that every way is watched for some seconds
WARM_UP = 10  # steps before
EPOCH_IMAGES = 55_000
_trainers: dict[tuple, _Trainer] = {}  # of this process


def recipe_of(model: int) -> Recipe:
    """The recipe of one of the ten models."""
    return RECIPES[EXPERIMENTS[str(model)].recipe]


def trainer(model: int, precision: str | None, threads: int) -> _Trainer:
    """A trainer of this process, on the training split of 55,000 images."""
    key = model, precision, threads
    torch.set_num_threads(threads)
    if key not in _trainers:
        train, _ = split_validation(load_mnist().train)
        engine = best_engine("cpu", precision)
        _trainers[key] = _Trainer(MODELS[model], recipe_of(model), train, engine, seed=0)
    return _trainers[key]


def our_seconds_per_step(ours: _Trainer, start_at: float = 0.0) -> float:
    """Mean seconds of a training step of `fit`; waits, warmed up, for the wall time `start_at`."""
    images, labels, size = ours.images, ours.labels, ours.recipe.batch_size
    try:
        for steps in (WARM_UP, STEPS):
            ours.images, ours.labels = images[: size * steps], labels[: size * steps]
            if steps == STEPS:
                time.sleep(max(0.0, start_at - time.time()))
            started = time.perf_counter()
            ours._train(1, [])
        return (time.perf_counter() - started) / STEPS
    finally:
        ours.images, ours.labels = images, labels


def _sweep_step(model: int, start_at: float) -> float:
    keep_memory()  # as the workers of a sweep do
    return our_seconds_per_step(trainer(model, None, 1), start_at)


def sweep_seconds_per_step(pool: ProcessPoolExecutor, model: int, count: int) -> float:
    """Seconds per step and run when `count` processes of one thread train at once."""
    start_at = time.time() + 2
    futures = [pool.submit(_sweep_step, model, start_at) for _ in range(count)]
    return max(future.result() for future in futures) / count


def measure() -> dict[int, dict]:
    """All rounds of all models, interleaved; {model: figures}, seconds per epoch."""
    cores = os.cpu_count()
    names = ("workers_0", "workers_2", "run", "run_float32", "sweep", "one_thread")
    rounds: dict[int, dict[str, list[float]]] = {m: {n: [] for n in names} for m in MEASURED}
    with ProcessPoolExecutor(cores, timeout=None) as pool, ProcessPoolExecutor(1) as alone:
        for round_ in range(-1, ROUNDS):  # the first round compiles and fills caches
            for model in MEASURED:
                seconds = _one_round(model, cores, pool, alone)
                print(f"round {round_ + 1} of {ROUNDS}, model {model}:", end="")
                for name, step in seconds.items():
                    epoch = step * EPOCH_IMAGES / recipe_of(model).batch_size
                    print(f"  {name} {epoch:.2f} s", end="", flush=True)
                    if round_ >= 0:
                        rounds[model][name].append(epoch)
                print()
    return {model: _figures(rounds[model]) for model in MEASURED}


def _one_round(model: int, cores: int, pool, alone) -> dict[str, float]:
    """Seconds per step of every way to train the model."""
    config, recipe = MODELS[model], recipe_of(model)
    torch.set_num_threads(cores)
    seconds = {
        f"workers_{workers}": conventional.seconds_per_step(
            config, recipe, workers, CONVENTIONAL_STEPS
        )
        for workers in (0, 2)
    }
    seconds["run"] = our_seconds_per_step(trainer(model, None, cores))
    seconds["run_float32"] = our_seconds_per_step(trainer(model, "float32", cores))
    seconds["sweep"] = sweep_seconds_per_step(pool, model, cores)
    seconds["one_thread"] = sweep_seconds_per_step(alone, model, 1)
    return seconds


def _figures(rounds: dict[str, list[float]]) -> dict:
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    usual = min(medians["workers_0"], medians["workers_2"])
    return {
        "conventional_s": usual,
        "run_s": medians["run"],
        "run_float32_s": medians["run_float32"],
        "sweep_s": medians["sweep"],
        "one_thread_s": medians["one_thread"],
        "run_ratio": medians["run"] / usual,
        "sweep_ratio": medians["sweep"] / usual,
        "rounds": rounds,
    }


def training_macs(config: NetworkConfig) -> int:
    """Multiply-accumulates of forward and backward pass on one image, convolutions only.

    A convolution's backward pass takes twice its forward pass, gradients of weights and of inputs;
    the first one needs none of its inputs.
    """
    counts: list[int] = []

    def count(layer: nn.Conv2d, _, output: torch.Tensor) -> None:
        counts.append(output[0].numel() * layer.weight[0].numel())

    network = build(config).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 1, 28, 28))
    return 3 * sum(counts) - counts[0]


def matmul_gflops() -> dict[str, float]:
    """The machine's peak on all cores, 10^9 operations per second: the best of ten products."""
    torch.set_num_threads(os.cpu_count())
    peak = {}
    for name in ("float32", "bfloat16"):
        a = torch.randn(2048, 2048).to(getattr(torch, name))
        best = float("inf")
        for _ in range(10):
            started = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - started)
        peak[name] = 2 * 2048**3 / best / 1e9
    return peak


def peak_share(config: NetworkConfig, seconds: float, peak: dict[str, float]) -> float:
    """Share of the matmul peak, in the precision trained in, that an epoch's arithmetic takes."""
    operations = 2 * training_macs(config) * EPOCH_IMAGES
    return operations / seconds / 1e9 / peak[best_engine("cpu").precision]


def gpu_seconds() -> dict[str, float] | None:
    """Seconds of a run of model 9 on a CUDA device, by epochs; None without one."""
    if not torch.cuda.is_available():
        return None
    from utils.training import fit

    took, data, recipe = {}, load_mnist(), recipe_of(9)
    for epochs in (1, 5, 15):  # the first one warms up
        started = time.perf_counter()
        fit(MODELS[9], replace(recipe, epochs=epochs), data, 0, engine=best_engine("cuda"))
        took[str(epochs)] = time.perf_counter() - started
    return took
