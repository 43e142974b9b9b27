"""How each network is trained: recipes, each a delta of another, and the study's experiments.

A recipe says everything about a run that is not the network, the seed or the data. Nothing in it
can name the test set: the plateau schedule reads the validation loss, and it asks for a validation
split.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from models import EVERY_3X3, MODELS, NetworkConfig
from utils.borders import Degrees, Listed, Positive, Share, checked


@checked
class Recipe:
    """One way to train a network.

    To train otherwise give a recipe another value, as below; never change a default here: a run's
    key leaves fields at their defaults out, so that a new field can come with a neutral one.

    Raises:
        ValueError: for a value of another type or outside its range; one line names the field.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01  # the first value
    momentum: Share = 0.9  # SGD only
    nesterov: bool = False  # SGD only
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Positive = 128  # images
    epochs: Positive = 15
    # "linear" falls to 0 at the last step, "step" decays after the milestones, "plateau" where
    # the validation loss stops falling. "plateau on test" is the original's mistake, replicated.
    schedule: Literal["constant", "plateau", "plateau on test", "step", "linear"] = "constant"
    patience: Annotated[int, Field(ge=0)] = 1  # epochs without a lower loss, before "plateau" acts
    milestones: Annotated[tuple[Positive, ...], Listed] = ()  # epochs after which "step" decays
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1  # factor of "plateau" and "step"
    # Warps of the training images, one of its own for every image and epoch.
    rotations: Annotated[tuple[Degrees, ...], Listed] = ()  # each adds a uniform [-r, r]
    translate: Share = 0.0  # share of the side; uniform [-t, t] along each axis
    scale: Share = 0.0  # zoom factor uniform in [1 - s, 1 + s]
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, uniform [-s, s]
    # An average of the weights (EMA), which is what gets measured: decay per step, 0 for none.
    ema_decay: Share = 0.0
    ema_warmup: bool = False  # let the decay grow from 0, so that the first steps are forgotten
    validation: bool = False  # hold 5,000 training images out, train on 55,000

    def __post_init__(self):
        if self.schedule == "plateau" and not self.validation:
            raise ValueError("recipe: plateau reads the validation loss: set validation=True")

    @property
    def warps(self) -> bool:
        """Whether training images are augmented at all."""
        return bool(self.rotations or self.translate or self.scale or self.shear)


@dataclass(frozen=True)
class Experiment:
    """A network, the recipe that trains it, and the seeds that the study wants of it."""

    config: NetworkConfig
    recipe: Recipe
    seeds: tuple[int, ...] = (0, 1, 2)
    measure_test: bool = field(default=True, kw_only=True)  # False: a search, the test set is shut
    reference: bool = field(default=False, kw_only=True)  # float32 and torch's own layers


RECIPES: dict[str, Recipe] = {}
RECIPES["constant"] = Recipe()
RECIPES["rotation"] = replace(RECIPES["constant"], rotations=(6.9,))
RECIPES["plateau"] = replace(
    RECIPES["rotation"],
    rotations=(6.9, 15.0),
    learning_rate=0.075,
    schedule="plateau",
    validation=True,
)
# The original's own recipes, as its code has them: its text brings augmentation in at model 8, its
# code rotated from model 1 on, and the schedule of its models 9 and 10 saw the TEST loss. They
# measure what that did, belong to none of the ten, and nothing else may use that schedule.
RECIPES["original"] = replace(RECIPES["constant"], rotations=(7.0,))
RECIPES["original-plateau"] = replace(
    RECIPES["original"], rotations=(7.0, 15.0), learning_rate=0.075, schedule="plateau on test"
)
# Model 9's recipe with nothing changed but the loss that its schedule sees.
RECIPES["leak"] = replace(RECIPES["plateau"], schedule="plateau on test")

# The finals: the same networks, a better recipe. Each candidate changes one thing of the first
# (the step schedule comes with a rate of its own); `tools/search.py` compares them on the
# validation split, never on the test set.
_BASE = Recipe(
    learning_rate=0.2,
    nesterov=True,
    batch_size=64,
    schedule="linear",
    rotations=(10.0,),
    translate=0.03,
    ema_decay=0.998,
    validation=True,
)
CANDIDATES: dict[str, Recipe] = {
    "base": _BASE,
    "no-average": replace(_BASE, ema_decay=0.0),
    "half-rate": replace(_BASE, learning_rate=0.1),
    "batch-128": replace(_BASE, batch_size=128),
    "shift-5": replace(_BASE, translate=0.05),
    "steps": replace(_BASE, schedule="step", learning_rate=0.1, milestones=(10, 13)),
}
# The winner (a test holds it against the search's records), now on all 60,000 images.
RECIPES["final"] = replace(CANDIDATES["steps"], validation=False)

# How short can a run be? The first candidate, its schedule stretched over fewer epochs; the search
# takes the shortest that is as good on the validation split as the finals' recipe.
SHORT_CANDIDATES: dict[str, Recipe] = {
    f"short-{epochs}": replace(_BASE, epochs=epochs) for epochs in (4, 6, 8, 10)
}
RECIPES["short"] = replace(SHORT_CANDIDATES["short-10"], validation=False)

# Everything wanted, in the order in which it is trained; docs/plan.md says why. What is recorded in
# records/ is part of this (a test), and `make evidence` trains what is missing.
FIVE, TEN = tuple(range(5)), tuple(range(10))
EXPERIMENTS: dict[str, Experiment] = {}
for _model in range(1, 8):
    _seeds = FIVE if _model < 4 else TEN
    EXPERIMENTS[str(_model)] = Experiment(MODELS[_model], RECIPES["constant"], _seeds)
EXPERIMENTS["8"] = Experiment(MODELS[8], RECIPES["rotation"], TEN)
EXPERIMENTS["9"] = Experiment(MODELS[9], RECIPES["plateau"], TEN)
EXPERIMENTS["10"] = Experiment(MODELS[10], RECIPES["plateau"], TEN)
EXPERIMENTS["9-final"] = Experiment(MODELS[9], RECIPES["final"])
EXPERIMENTS["10-final"] = Experiment(MODELS[10], RECIPES["final"])
EXPERIMENTS["9-short"] = Experiment(MODELS[9], RECIPES["short"], FIVE)
# What the original bundled, taken apart: dropout and one batch norm fewer, warp and schedule.
EXPERIMENTS["4-dropout"] = Experiment(replace(MODELS[4], dropout=0.01), RECIPES["constant"], TEN)
EXPERIMENTS["4-norm-fewer"] = Experiment(
    replace(MODELS[4], batch_norm=MODELS[5].batch_norm), RECIPES["constant"], TEN
)
EXPERIMENTS["8-warp"] = Experiment(
    MODELS[8], replace(RECIPES["rotation"], rotations=(6.9, 15.0)), TEN
)
EXPERIMENTS["8-schedule"] = Experiment(
    MODELS[8], replace(RECIPES["plateau"], rotations=(6.9,)), TEN
)
# What the plateau schedule gained by watching the test loss, paired by seed with model 9.
EXPERIMENTS["9-leak"] = Experiment(MODELS[9], RECIPES["leak"], TEN)
# The original replicated as its code has it.
for _model in range(1, 11):
    _recipe = RECIPES["original" if _model < 9 else "original-plateau"]
    EXPERIMENTS[f"{_model}-original"] = Experiment(MODELS[_model], _recipe, FIVE)
EXPERIMENTS["6-norm"] = Experiment(
    replace(MODELS[6], batch_norm=EVERY_3X3), RECIPES["constant"], FIVE
)
EXPERIMENTS["7-norm-fewer"] = Experiment(
    replace(MODELS[7], batch_norm=MODELS[6].batch_norm), RECIPES["constant"], FIVE
)
for _name, _dropout in (("no-dropout", 0.0), ("dropout-5", 0.05)):
    EXPERIMENTS[f"7-{_name}"] = Experiment(
        replace(MODELS[7], dropout=_dropout), RECIPES["constant"], FIVE
    )
for _name in ("9", "9-short"):
    EXPERIMENTS[f"{_name}-reference"] = replace(EXPERIMENTS[_name], seeds=FIVE, reference=True)
for _name, _recipe in CANDIDATES.items():
    _seeds = (0, 1) if _name in ("steps", "batch-128") else (0,)  # round 2: the best two
    for _model in (9, 10):
        EXPERIMENTS[f"{_model}-search-{_name}"] = Experiment(
            MODELS[_model], _recipe, _seeds, measure_test=False
        )
for _name, _recipe in SHORT_CANDIDATES.items():
    EXPERIMENTS[f"9-search-{_name}"] = Experiment(MODELS[9], _recipe, measure_test=False)


def get_experiment(name: str | int) -> Experiment:
    """The experiment called `name`, e.g. 9 or "9-final".

    Raises:
        ValueError: if there is none; the message lists the valid names.
    """
    if str(name) not in EXPERIMENTS:
        raise ValueError(
            f"unknown experiment {name!r}; the experiments are {', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[str(name)]


def changes(before, after) -> dict[str, tuple]:
    """What one recipe or config changed against another: {field: (before, after)}."""
    old, new = vars(before), vars(after)
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


@dataclass(frozen=True)
class Published:
    """What the original study states of one model: one seed, its best epoch on the test set."""

    parameters: int
    train_accuracy: float  # best, percent
    train_epoch: str
    test_accuracy: float  # best, percent
    test_epoch: str


# Typed once, here, because they are quotations of its README; all else is computed.
PUBLISHED: dict[int, Published] = {
    1: Published(75_408, 99.33, "epoch 15", 99.01, "epoch 14"),
    2: Published(14_760, 98.53, "epoch 15", 98.55, "epoch 10"),
    3: Published(9_446, 98.82, "epoch 15", 98.82, "epoch 14"),
    4: Published(8_714, 99.41, "epoch 15", 99.29, "epoch 14"),
    5: Published(8_694, 99.24, "epoch 15", 99.22, "epoch 15"),
    6: Published(5_194, 98.97, "epoch 15", 99.35, "epoch 12"),
    7: Published(7_598, 98.92, "epoch 15", 99.20, "epoch 15"),
    8: Published(7_598, 98.63, "epoch 15", 99.26, "epoch 15"),
    9: Published(7_598, 99.08, "epoch 15", 99.42, "from epoch 12"),
    10: Published(6_022, 98.86, "epoch 15", 99.41, "from epoch 14"),
}
