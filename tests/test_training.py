from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from models import MODELS
from study.experiments import EXPERIMENTS
from study.store import weights_checksum
from tests.conftest import subset
from utils.augmentation import sample_affine
from utils.data import Split, split_validation
from utils.device import Engine
from utils.recipes import RECIPES, Recipe, learning_rate, optimizer
from utils.training import NonFiniteLossError, Trainer, confusion_matrix, fit, predict

# Everything random at once: order, augmentation, dropout; and an EMA.
AUGMENTED = Recipe(learning_rate=0.05, rotations=(10.0,), translate=0.05, scale=0.05, shear=3.0)
RICH = replace(
    AUGMENTED, batch_size=64, epochs=2, ema_decay=0.9, schedule="linear", validation=True
)


def figures(run):
    """The history without its times, and the weights' checksum."""
    rows = [replace(row, seconds=0.0) for row in run.history]
    return rows, weights_checksum(run.network.state_dict())


@pytest.mark.parametrize("model", [5, 9])
def test_a_run_repeats_bit_for_bit_and_leaves_the_global_generator_alone(small, model):
    found = []
    for state in range(2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        found.append(figures(fit(MODELS[model], RICH, small, seed=3)))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]


WATCHES_THE_TEST = {"9-leak", "9-original", "10-original"}  # replications of a mistake
RECORDED = {e.recipe: name for name, e in EXPERIMENTS.items() if name not in WATCHES_THE_TEST}
SCHEDULES = {(recipe.optimizer, recipe.schedule): recipe for recipe in RECORDED}


@pytest.mark.parametrize("recipe", SCHEDULES.values(), ids=map(" ".join, SCHEDULES))
def test_the_test_set_decides_nothing(small, recipe):
    shuffled = Split(small.test.images.flip(0), small.test.labels)
    # Long and impatient enough for a schedule that watched the wrong loss to act on it.
    watching = recipe.schedule == "plateau"
    recipe = replace(recipe, epochs=8 if watching else 2, patience=0)
    data = replace(subset(small, 240, 0), test=small.test)
    honest = fit(MODELS[9], recipe, data, 0)
    misled = fit(MODELS[9], recipe, replace(data, test=shuffled), 0)
    blind = fit(MODELS[9], recipe, data, 0, measure_test=False)
    assert honest.history[-1].test_loss != misled.history[-1].test_loss
    assert figures(honest)[1] == figures(misled)[1] == figures(blind)[1]
    assert blind.history[-1].test_accuracy is None


def test_only_the_replications_of_a_mistake_watch_the_test_loss(small):
    using = {n for n, e in EXPERIMENTS.items() if e.recipe.schedule == "plateau on test"}
    assert using == WATCHES_THE_TEST
    with pytest.raises(ValueError, match="needs measure_test=True"):
        fit(MODELS[9], EXPERIMENTS["9-leak"].recipe, small, 0, measure_test=False)


@pytest.mark.parametrize(
    ("name", "split", "patience"), [("10", "validation", 1), ("9-leak", "test", 0)]
)
def test_a_plateau_decays_after_its_patience_without_a_lower_loss(small, name, split, patience):
    recipe = replace(EXPERIMENTS[name].recipe, epochs=30, patience=patience, batch_size=50)
    run = fit(MODELS[10], recipe, subset(small, 300, 50), 0)
    best, bad, rate, expected = float("inf"), 0, 0.075, []
    for row in run.history:
        expected.append(rate)
        loss = getattr(row, f"{split}_loss")
        best, bad = (loss, 0) if loss < best * (1 - 1e-4) else (best, bad + 1)
        if bad > patience and rate > 1e-8:  # torch makes no smaller steps
            rate, bad = rate * 0.1, 0
    assert min(expected) < 0.075, "the run never reached a plateau, so nothing was tested"
    assert [row.learning_rate for row in run.history] == pytest.approx(expected)


SCHEDULERS = {
    "constant": lambda optimizer, _: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "linear": lambda optimizer, n: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4 * n),
    "step": lambda optimizer, n: lr_scheduler.MultiStepLR(optimizer, [n, 3 * n], gamma=0.3),
}


@pytest.mark.parametrize("schedule", SCHEDULERS)
def test_the_closed_form_of_a_schedule_is_torchs_own(small, schedule):
    recipe = Recipe(learning_rate=0.1, epochs=4, batch_size=100, schedule=schedule)
    recipe = replace(recipe, milestones=(1, 3), decay=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1)], recipe.learning_rate)
    theirs, rates = SCHEDULERS[schedule](optimizer, 6), []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert [learning_rate(recipe, step, 6) for step in range(24)] == pytest.approx(rates)
    trainer, used = Trainer(MODELS[4], recipe, small.train, Engine(), 0), []
    assert type(trainer.optimizer) is torch.optim.SGD
    step = trainer.step
    trainer.step = lambda *batch: (used.append(trainer.set_rate(len(used))), step(*batch))[1]
    rows = [trainer.epoch(epoch, None, None) for epoch in range(1, 5)]
    assert used == pytest.approx(rates)
    assert [row.learning_rate for row in rows] == pytest.approx(rates[::6])


def test_a_warm_up_rises_from_a_tenth_and_then_leaves_the_schedule_alone():
    recipe = Recipe(learning_rate=0.1, epochs=4, schedule="linear")
    plain = [learning_rate(recipe, step, 6) for step in range(24)]
    warm = [learning_rate(replace(recipe, warm_up=0.5), step, 6) for step in range(24)]
    factors = [0.1, 0.4, 0.7] + [1] * 21
    assert warm == pytest.approx([p * f for p, f in zip(plain, factors, strict=True)])
    with pytest.raises(ValueError, match=r"depends on the run: see the history of its record"):
        learning_rate(RECIPES["plateau"], 0, 1)


def test_calm_epochs_reduce_the_augmentation_of_the_last_epochs_alone(small, monkeypatch):
    draw = Mock(wraps=sample_affine)
    monkeypatch.setattr("utils.training.sample_affine", draw)
    recipe = Recipe(epochs=4, rotations=(10.0,), calm_epochs=1, calm=0.25)
    fit(MODELS[10], recipe, subset(small, 130, 10), 0, engine=Engine())
    assert [call.args[3] for call in draw.call_args_list] == [1, 1, 1, 0.25]


def test_validation_images_are_not_trained_on(small):
    _, validation = split_validation(small.train)
    run = fit(MODELS[4], RICH, small, 0)
    held_out = predict(run.network, validation.images, run.statistics)
    n_correct = (held_out.argmax(1) == validation.labels).sum()
    assert run.history[-1].validation_accuracy == 100 * int(n_correct) / 50
    held = {image.numpy().tobytes() for image in validation.images}
    images = [255 - i if i.numpy().tobytes() in held else i for i in small.train.images]
    other = replace(small, train=Split(torch.stack(images), small.train.labels))
    assert figures(fit(MODELS[4], RICH, other, 0))[1] == figures(run)[1]


def test_muon_makes_the_steps_of_torchs_own_and_leaves_the_rest_to_adamw():
    torch.manual_seed(0)
    shapes = [(9, 5, 1, 1), (9, 5, 1, 1), (5, 9, 1, 1), (5, 4, 3, 3), (9, 1, 3, 3), (9,)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [p.detach().flatten(1) if p.dim() == 4 else p.detach() for p in ours]
    theirs = [torch.nn.Parameter(each.clone()) for each in theirs]
    start = [p.detach().clone() for p in ours]
    settings = {"lr": 0.02, "weight_decay": 0.1}
    mine = optimizer(ours, Recipe(optimizer="muon", learning_rate=0.02, weight_decay=0.1), "cpu")
    muon = torch.optim.Muon(theirs[:4], **settings, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(theirs[4:], **settings)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            b.grad = torch.randn_like(b)
            a.grad = b.grad.view_as(a).clone()
        for each in (mine, muon, adamw):
            each.step()
    for index, (a, b, before) in enumerate(zip(ours, theirs, start, strict=True)):
        moved, expected = a - before, b.view_as(a) - before
        # torch's Muon works in bfloat16.
        limit = 0.03 if index < 4 else 1e-4
        assert (moved - expected).norm() < limit * expected.norm(), index


def test_the_measured_weights_are_the_moving_average(small):
    recipe = Recipe(optimizer="adamw", learning_rate=0.05, batch_size=64, ema_decay=0.6)
    trainer = Trainer(MODELS[4], recipe, small.train, Engine(), 0)
    assert type(trainer.optimizer) is torch.optim.AdamW
    names = "late.conv5.weight", "late.norm5.running_var"
    expected = dict.fromkeys(names, 0)
    for step, decay in enumerate([0, 0.6, 0.6, 0.6, 0.6]):
        trainer.step(torch.arange(64 * step, 64 * step + 64), None)
        for name in names:
            now = trainer.network.state_dict()[name]
            expected[name] = decay * expected[name] + (1 - decay) * now
    for name in names:
        averaged = trainer.plain_network().state_dict()[name]
        torch.testing.assert_close(averaged, expected[name])
        assert not torch.allclose(averaged, trainer.network.state_dict()[name], rtol=1e-4)


def test_the_last_smaller_batch_counts_by_its_size(small):
    train = subset(small, 130, 0).train
    trainer = Trainer(MODELS[1], Recipe(learning_rate=1e-12), train, Engine(), 0)
    loss, accuracy = trainer.train_epoch(1)
    log_probabilities = predict(trainer.network, train.images, trainer.statistics)
    expected = torch.nn.functional.nll_loss(log_probabilities, train.labels)
    assert loss == pytest.approx(float(expected), rel=1e-4)
    n_correct = (log_probabilities.argmax(1) == train.labels).sum()
    assert accuracy == pytest.approx(100 * int(n_correct) / 130)


def test_ctrl_c_ends_a_run_and_puts_everything_back(small):
    interrupt = Mock(side_effect=KeyboardInterrupt)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    with pytest.raises(KeyboardInterrupt):
        fit(MODELS[4], RICH, small, 0, report=interrupt, engine=Engine(threads=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == before[1:]


@pytest.mark.parametrize(
    ("sizes", "fields", "seed", "said"),
    [
        ((600, 5), {"learning_rate": 1e30, "epochs": 3}, 0, r"not finite at epoch 1, step [2-6];"),
        ((600, 5), {"batch_size": 601}, 0, "batch_size is 601 but there are 600 training images"),
        ((600, 5), {"batch_size": 600, "validation": True}, 0, "600 but there are 550 training"),
        ((11, 5), {"batch_size": 2, "validation": True}, 0, "11 images are too few to hold some"),
        ((11, 0), {"batch_size": 2}, 0, "test split is empty; pass measure_test=False"),
        ((11, 5), {"batch_size": 2}, -1, "^seed: .*, not -1"),
        ((11, 5), {"batch_size": 2}, True, "^seed: .*, not True"),
    ],
)
def test_what_cannot_be_trained_is_one_line(small, sizes, fields, seed, said):
    recipe = replace(Recipe(batch_size=100), **fields)
    with pytest.raises((ValueError, NonFiniteLossError), match=said) as error:
        fit(MODELS[1], recipe, subset(small, *sizes), seed)
    assert "\n" not in str(error.value)


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
        recipe = replace(RICH, batch_size=batch_size)
        trainer = Trainer(MODELS[4], recipe, small.train, Engine(), 0)
        with _Syncs() as syncs:
            trainer.train_epoch(1)
        counts.append(syncs.count)
    assert counts[0] == counts[1] > 0


def test_confusion_matrix():
    scores = torch.eye(10)[[1, 1, 2]]
    matrix = confusion_matrix(scores, torch.tensor([1, 3, 2]))
    assert matrix[1][1] == matrix[3][1] == matrix[2][2] == 1
    assert sum(map(sum, matrix)) == 3
