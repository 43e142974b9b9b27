import dataclasses
import os
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models import MODELS
from tests.conftest import subset
from utils.data import Dataset, Split, split_validation
from utils.experiments import CANDIDATES, RECIPES, Recipe
from utils.records import weights_checksum
from utils.training import (
    Engine,
    NonFiniteLossError,
    _GraphedStep,
    _Trainer,
    best_engine,
    confusion_matrix,
    fit,
    learning_rates,
    predict,
    reference_engine,
)

# Everything random at once: order, warps, dropout, average.
RICH = Recipe(
    learning_rate=0.05,
    batch_size=64,
    epochs=2,
    rotations=(10.0,),
    translate=0.05,
    scale=0.05,
    shear=3.0,
    ema_decay=0.9,
    label_smoothing=0.1,
    schedule="linear",
    validation=True,
)


def figures(run):
    """The history without its times, and the weights' checksum."""
    rows = [replace(row, seconds=0.0) for row in run.history]
    return rows, weights_checksum(run.network.state_dict())


@pytest.mark.parametrize("model", [5, 9])
def test_a_run_is_repeatable_bit_for_bit(small, model):
    first, second = (fit(MODELS[model], RICH, small, seed=3) for _ in range(2))
    assert figures(first) == figures(second)


def test_seeds_differ(small):
    assert figures(fit(MODELS[9], RICH, small, 1)) != figures(fit(MODELS[9], RICH, small, 2))


def test_a_run_leaves_the_global_generator_alone(small):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    fit(MODELS[9], replace(RICH, epochs=1), small, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_does_not_depend_on_the_global_generator(small):
    torch.manual_seed(0)
    first = figures(fit(MODELS[9], RICH, small, seed=3))
    torch.manual_seed(1)
    assert figures(fit(MODELS[9], RICH, small, seed=3)) == first


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *CANDIDATES.values()])
def test_the_test_set_decides_nothing(small, recipe):
    shuffled = Split(small.test.images.flip(0), small.test.labels)
    # Long and impatient enough for a schedule that watched the wrong loss to act on it.
    watching = recipe.schedule == "plateau"
    recipe = replace(recipe, epochs=8 if watching else 2, patience=0)
    data = dataclasses.replace(subset(small, 240, 0), test=small.test)
    honest = fit(MODELS[9], recipe, data, 0)
    misled = fit(MODELS[9], recipe, dataclasses.replace(data, test=shuffled), 0)
    blind = fit(MODELS[9], recipe, data, 0, measure_test=False)
    assert honest.history[-1].test_loss != misled.history[-1].test_loss
    assert figures(honest)[1] == figures(misled)[1] == figures(blind)[1]
    assert blind.history[-1].test_accuracy is None


def test_it_learns(mnist):
    data = subset(mnist, 3_000, 1_000)
    recipe = Recipe(learning_rate=0.05, batch_size=32, epochs=3, schedule="linear")
    run = fit(MODELS[9], recipe, data, 0)
    assert run.history[-1].test_accuracy > 90
    assert run.history[-1].train_loss < run.history[0].train_loss / 2


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"schedule": "constant"}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "step", "milestones": (1, 3)}, [0.1, 0.01, 0.01, 0.001]),
        ({"schedule": "linear"}, [0.1, 0.075, 0.05, 0.025]),
    ],
)
def test_schedules(small, fields, rates):
    recipe = Recipe(learning_rate=0.1, epochs=4, batch_size=100, **fields)
    run = fit(MODELS[4], recipe, small, 0)
    assert [row.learning_rate for row in run.history] == pytest.approx(rates)
    by_step = learning_rates(recipe, len(small.train))
    assert by_step[::6] == pytest.approx(rates)


def test_linear_ends_just_above_zero_and_onecycle_peaks_at_the_rate():
    linear = learning_rates(Recipe(schedule="linear", epochs=2, batch_size=100), 1_000)
    assert linear[-1] == pytest.approx(0.01 / 20)
    cycle = learning_rates(Recipe(schedule="onecycle", learning_rate=0.3, epochs=2), 12_800)
    assert max(cycle) == pytest.approx(0.3, rel=0.01)
    assert cycle.index(max(cycle)) == pytest.approx(0.3 * len(cycle), abs=2)
    assert cycle[-1] < 0.001
    with pytest.raises(ValueError, match="depends on the run"):
        learning_rates(RECIPES["plateau"], 1_000)


def test_plateau_decays_after_two_epochs_without_a_lower_validation_loss(small):
    recipe = replace(RECIPES["plateau"], epochs=30, batch_size=50)
    run = fit(MODELS[10], recipe, subset(small, 300, 50), 0)
    best, bad, rate, expected = float("inf"), 0, 0.075, []
    for row in run.history:
        expected.append(rate)
        if row.validation_loss < best * (1 - 1e-4):
            best, bad = row.validation_loss, 0
        else:
            bad += 1
        if bad > 1 and rate > 1e-8:  # torch makes no smaller steps
            rate, bad = rate * 0.1, 0
    assert min(expected) < 0.075, "the run never reached a plateau, so nothing was tested"
    assert [row.learning_rate for row in run.history] == pytest.approx(expected)


def test_validation_images_are_not_trained_on(small):
    fit_split, validation = split_validation(small.train)
    trainer = _Trainer(MODELS[4], RICH, fit_split, Engine(), 0)
    assert len(trainer.images) == 550
    assert len(validation) == 50
    run = fit(MODELS[4], RICH, small, 0)
    held_out = predict(run.network, validation.images, run.statistics)
    hits = (held_out.argmax(1) == validation.labels).sum()
    assert run.history[-1].validation_accuracy == 100 * int(hits) / 50
    assert (
        fit(MODELS[4], replace(RICH, validation=False), small, 0).history[0].validation_loss is None
    )


def test_the_measured_weights_are_the_moving_average(small):
    recipe = replace(RICH, ema_decay=0.75)
    trainer = _Trainer(MODELS[4], recipe, small.train, Engine(), 0)
    name = "late.0.weight"
    expected = None
    for start in range(0, 320, 64):
        trainer._step(torch.arange(start, start + 64), None)
        weights = trainer.network.state_dict()[name]
        expected = weights.clone() if expected is None else 0.75 * expected + 0.25 * weights
    torch.testing.assert_close(trainer.measured.state_dict()[name], expected)
    averaged_statistics = trainer.measured.state_dict()["late.1.running_var"]
    assert not torch.equal(averaged_statistics, trainer.network.state_dict()["late.1.running_var"])


def test_the_last_smaller_batch_counts_by_its_size(small):
    data = subset_of(small, 130)
    trainer = _Trainer(MODELS[1], Recipe(learning_rate=1e-12), data.train, Engine(), 0)
    loss, accuracy = trainer._train(1, [])
    log_probabilities = predict(trainer.network, data.train.images, trainer.statistics)
    expected = torch.nn.functional.nll_loss(log_probabilities, data.train.labels)
    assert loss == pytest.approx(float(expected), rel=1e-4)
    hits = (log_probabilities.argmax(1) == data.train.labels).sum()
    assert accuracy == pytest.approx(100 * int(hits) / 130)


def subset_of(data: Dataset, train: int) -> Dataset:
    return subset(data, train, len(data.test))


def test_ctrl_c_keeps_the_history(small):
    def interrupt(row):
        if row.epoch == 2:
            raise KeyboardInterrupt

    run = fit(MODELS[4], replace(RICH, epochs=9), small, 0, report=interrupt)
    assert run.interrupted
    assert [row.epoch for row in run.history] == [1, 2]


def test_non_finite_loss_says_where_and_keeps_the_history(small):
    recipe = Recipe(learning_rate=1e30, batch_size=100, epochs=3)
    with pytest.raises(NonFiniteLossError, match=r"not finite at epoch 1, step [2-6];") as error:
        fit(MODELS[1], recipe, small, 0)
    assert error.value.history == []


def test_batch_larger_than_the_split(small):
    with pytest.raises(ValueError, match="batch_size is 601 but there are 600 training images"):
        fit(MODELS[1], Recipe(batch_size=601), small, 0)
    with pytest.raises(ValueError, match="batch_size is 600 but there are 550 training images"):
        fit(MODELS[1], Recipe(batch_size=600, validation=True), small, 0)


class _Syncs(TorchDispatchMode):
    """Counts reads of a tensor's value by the host."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function):
            self.count += 1
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(small):
    counts = []
    for batch_size in (200, 20):
        recipe = Recipe(batch_size=batch_size, rotations=(5.0,), schedule="linear", ema_decay=0.9)
        trainer = _Trainer(MODELS[4], recipe, small.train, Engine(), 0)
        with _Syncs() as syncs:
            trainer._train(1, [])
        counts.append(syncs.count)
    assert counts[0] == counts[1] > 0


def test_engine_choice():
    assert best_engine("cpu", "float32").precision == "float32"
    with pytest.raises(ValueError, match="precision must be"):
        best_engine(precision="float16")
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used here"):
        best_engine("nonsense")
    assert best_engine("cpu").fused
    assert not reference_engine().fused


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("layout", "fused"), [("contiguous", False), ("channels_last", False), ("channels_last", True)]
)
def test_engines_train_alike(mnist, precision, layout, fused):
    recipe = Recipe(learning_rate=0.05, batch_size=32, epochs=2, schedule="linear")
    engine = Engine("cpu", precision, torch.get_num_threads(), layout, fused)
    run = fit(MODELS[9], recipe, subset(mnist, 2_000, 500), 0, engine=engine)
    assert run.engine == engine
    assert run.history[-1].test_accuracy > 80


def test_a_recorded_step_trains_as_the_plain_one_does(small):
    """What a CUDA graph would replay, recorded by a stand-in that runs it: fixed memory in, out."""

    def record(function):
        output = torch.empty(())
        recorded.append(function)
        (group,) = trainer.optimizer.param_groups
        rate = group["lr"]  # a graph reads the memory that was there when it was recorded

        def replay():
            now, group["lr"] = group["lr"], rate
            output.copy_(function())
            group["lr"] = now

        return output, replay

    runs = []
    for graphed in (False, True):
        recorded: list = []
        torch.manual_seed(0)
        trainer = _Trainer(MODELS[4], RICH, small.train, Engine(), 0)
        if graphed:
            trainer.step = _GraphedStep(trainer._step, trainer.optimizer, RICH.batch_size, record)
        rows = [trainer._train(epoch, []) for epoch in (1, 2)]
        assert len(recorded) == graphed
        assert isinstance(trainer.optimizer.param_groups[0]["lr"], float)
        runs.append((rows, trainer.measured.state_dict()))
    assert runs[0][0] == [pytest.approx(row, rel=1e-5) for row in runs[1][0]]
    torch.testing.assert_close(runs[0][1], runs[1][1])


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_accelerators_run_the_same_code(small, device):
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        pytest.skip(f"no {device} here")
    run = fit(MODELS[9], RICH, small, 0, engine=best_engine(device))
    assert next(run.network.parameters()).device.type == "cpu"
    assert len(run.history) == 2


def test_confusion_matrix():
    scores = torch.eye(10)[[1, 1, 2]]
    matrix = confusion_matrix(scores, torch.tensor([1, 3, 2]))
    assert matrix[1][1] == matrix[3][1] == matrix[2][2] == 1
    assert sum(map(sum, matrix)) == 3


def test_device_from_the_environment(monkeypatch):
    monkeypatch.setitem(os.environ, "MNIST_DEVICE", "cpu")
    assert best_engine().device == "cpu"
