import contextlib
import dataclasses
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import MODELS, SeparableConfig
from study.experiments import EXPERIMENTS, FINALS, TRIALS
from study.records import count_parameters
from study.runs import wanted_runs
from tests.conftest import RUN
from utils.recipes import RECIPES, Recipe, changes


def recipe_of(model: int) -> Recipe:
    return EXPERIMENTS[str(model)].recipe


def test_models_1_to_7_share_a_recipe_to_which_8_adds_a_rotation_and_9_the_plateau():
    recipe = RECIPES["constant"]
    assert all(recipe_of(model) == recipe for model in range(1, 8))
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum) == ("sgd", 0.01, 0.9)
    assert (recipe.batch_size, recipe.epochs, recipe.augments) == (128, 15, False)
    assert changes(recipe, recipe_of(8)) == {"rotations": ((), (6.9,))}
    assert changes(recipe_of(8), recipe_of(9)) == {
        "rotations": ((6.9,), (6.9, 15.0)),
        "learning_rate": (0.01, 0.075),
        "schedule": ("constant", "plateau"),
        "validation": (False, True),
    }
    assert recipe_of(9) == recipe_of(10)
    assert (recipe_of(9).decay, recipe_of(9).patience) == (0.1, 1)


def test_every_experiment_of_a_model_has_its_network_but_for_one_idea():
    assert list(EXPERIMENTS)[:10] == [str(model) for model in MODELS]
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert (experiment.model is None) == isinstance(experiment.config, SeparableConfig)
        if experiment.model:
            apart = set(changes(MODELS[experiment.model], experiment.config))
            assert len(apart) <= 1 or apart == {"edges", "late"}, name
            assert name.split("-")[0] == str(experiment.model)
        assert experiment.reference == name.endswith("reference"), name
        assert len(set(experiment.seeds)) == len(experiment.seeds) > 0, name
    sizes = [count_parameters(EXPERIMENTS[f"10-{name}"].config) for name in ("gates", "wider")]
    assert 0 <= sizes[1] - sizes[0] <= 4
    keys = {wanted_runs(name, 0)[0].key("da7a") for name in EXPERIMENTS}
    assert len(keys) == len(EXPERIMENTS) - 1  # the original trains 7 and 8 alike: one set of runs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate: .*greater than 0, not 0.0"),
        ({"learning_rate": True}, "learning_rate: .*valid number, not True"),
        ({"epochs": 1.5}, "epochs: .*valid integer, not 1.5"),
        ({"patience": -2}, "patience: .*greater than or equal to 0, not -2"),
        ({"rotations": (float("nan"),)}, "rotations.0: .*finite number, not nan"),
        ({"rotations": (6.9, 181)}, "rotations.1: .*less than or equal to 180, not 181"),
        ({"momentum": torch.eye(9)}, "momentum: .*valid number, not tensor"),
        ({"schedule": "cosine"}, "schedule: .*'constant', 'plateau'.*'linear', not 'cosine'"),
        ({"label_smoothing": 0.1}, "label_smoothing: unexpected keyword argument"),
        ({"a\r\nb": 0.1}, r"a\?\?b: unexpected keyword argument"),
        ({"nesterov": True, "momentum": 0.0}, " ?nesterov needs a momentum"),
        ({"warm_up": 15.5}, " ?warm_up lasts longer than the 15 epochs"),
        ({"schedule": "plateau"}, " ?plateau reads the validation loss: set validation=True"),
    ],
)
def test_bad_recipe(fields, message):
    with pytest.raises(ValueError, match=rf"^recipe[.:] ?{message}") as error:
        Recipe(**fields)
    assert len(str(error.value).splitlines()[0]) == len(str(error.value)) < 160


def test_what_is_no_recipe_or_seed_is_refused_as_it_is_given():
    with pytest.raises(ValueError, match=r"^recipe\.optimizer: unexpected positional argument"):
        Recipe("sgd", 0.1)
    for name, value in (("recipe", "final"), ("seed", 2**63), ("seed", -1), ("seed", 1.0)):
        with pytest.raises(ValueError, match=rf"^run\.{name}: "):
            replace(RUN, **{name: value})


def test_equal_values_make_one_recipe():
    listed, whole, exact = (Recipe(rotations=given) for given in ([7], (7,), (7.0,)))
    assert len({listed, whole, exact}) == 1
    assert repr(listed) == repr(whole) == repr(exact)  # what is written, and hashed for a key, too


SCALARS = st.one_of(
    st.floats(), st.integers(), st.integers(-2, 200), st.floats(0, 1), st.text(), st.none(),
    st.booleans(), st.sampled_from(["sgd", "adamw", "linear", "step", "plateau"]),
)  # fmt: skip
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.lists(SCALARS, max_size=3).map(tuple))
FIELDS = [
    (start, field.name)
    for start in (Recipe(), MODELS[9], SeparableConfig((8, 8, 8)))
    for field in dataclasses.fields(start)
]


@settings(max_examples=400, database=None, derandomize=True, deadline=None)
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_of_any_field_is_kept_or_refused_in_one_line(field, value):
    start, name = field
    try:
        changed = replace(start, **{name: value})
    except ValueError as error:
        refused = str(error)
        assert len(refused.splitlines()) == 1
        assert name in refused or "plateau" in refused or "channels can only change" in refused
    else:
        kept = getattr(changed, name)
        assert kept == (tuple(value) if isinstance(value, list) else value)
        json.dumps(dataclasses.asdict(changed), allow_nan=False)  # a key can be made of it
        if not isinstance(changed, Recipe):
            with contextlib.suppress(RuntimeError):  # torch's own, at a network too large to be
                assert count_parameters(changed) > 0


@settings(max_examples=200, database=None, derandomize=True, deadline=None)
@given(value=st.one_of(VALUES, st.integers(2**62, 2**65)))
def test_any_value_as_a_seed_or_an_experiment_is_wanted_or_refused_in_one_line(value):
    for arguments in ((4, value), (value,)):
        try:
            found = wanted_runs(*arguments)
        except ValueError as error:
            refused = str(error)
            assert len(refused.splitlines()) == 1
        else:
            asked = value if isinstance(value, list | tuple) else [value]
            own = EXPERIMENTS[found[0].name].seeds
            wanted = own if value is None or len(arguments) == 1 else dict.fromkeys(asked)
            assert [run.seed for run in found] == list(wanted)


def test_every_trial_changes_its_base_and_nothing_sees_the_test_set():
    ideas = set()
    for name, trial in TRIALS.items():
        base, found = EXPERIMENTS[trial.base], (trial.config, trial.recipe)
        assert found != (base.config, base.recipe), name
        assert found not in ideas, name  # no idea twice
        ideas.add(found)
        assert set(trial.seeds) & set(base.seeds), name  # paired
        assert trial.recipe.held_out == base.recipe.held_out, name
        assert trial.recipe.validation, name
        assert not trial.measure_test, name


def test_a_final_is_a_trial_on_all_images_under_the_same_recipe():
    for name in FINALS:
        final = EXPERIMENTS[name]
        searched = replace(final.recipe, validation=True, held_out=10_000)
        same = {trial.recipe for trial in TRIALS.values() if trial.taken}
        assert searched in same, name
        assert not final.recipe.validation
