import pytest

from models import MODELS
from utils.experiments import (
    CANDIDATES,
    EXPERIMENTS,
    RECIPES,
    Recipe,
    get_experiment,
    get_recipe,
    recipe_changes,
)


def recipe_of(model: int) -> Recipe:
    return RECIPES[EXPERIMENTS[str(model)].recipe]


def test_models_1_to_7_share_the_constant_recipe():
    assert all(recipe_of(model) == RECIPES["constant"] for model in range(1, 8))
    recipe = RECIPES["constant"]
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum) == ("sgd", 0.01, 0.9)
    assert (recipe.batch_size, recipe.epochs, recipe.warps) == (128, 15, False)


def test_model_8_adds_a_rotation_and_nothing_else():
    assert recipe_changes(recipe_of(7), recipe_of(8)) == {"rotations": ((), (6.9,))}


def test_model_9_adds_a_second_rotation_and_the_plateau_schedule():
    assert recipe_changes(recipe_of(8), recipe_of(9)) == {
        "rotations": ((6.9,), (6.9, 15.0)),
        "learning_rate": (0.01, 0.075),
        "schedule": ("constant", "plateau"),
        "validation": (False, True),
    }
    assert recipe_of(9) == recipe_of(10)
    assert (recipe_of(9).decay, recipe_of(9).patience) == (0.1, 1)


def test_every_experiment_names_a_model_and_a_recipe():
    assert list(EXPERIMENTS)[:10] == [str(model) for model in MODELS]
    for name, experiment in EXPERIMENTS.items():
        assert experiment.model in MODELS, name
        assert experiment.recipe in RECIPES, name


def test_candidates_decide_on_validation_and_differ_from_the_base():
    base = CANDIDATES["base"]
    assert all(recipe.validation for recipe in CANDIDATES.values())
    assert all(recipe != base for name, recipe in CANDIDATES.items() if name != "base")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adamw, not 'lion'"),
        ({"schedule": "cosine"}, "schedule must be one of constant, plateau.*, not 'cosine'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
        ({"scale": 1.0}, "scale must be in"),
        ({"translate": -0.1}, "translate must be in"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"warmup": 0.0}, "warmup must be in"),
        ({"schedule": "plateau"}, "plateau reads the validation loss: set validation=True"),
    ],
)
def test_bad_recipe(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown experiment '11'; the experiments are 1, 2.*10"):
        get_experiment("11")
    with pytest.raises(ValueError, match=r"unknown recipe 'x'; the recipes are constant, rotation"):
        get_recipe("x")
