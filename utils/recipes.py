"""How each network is trained: recipes, each a delta of another.

A recipe says everything about a run that is not the network, the seed or the data.
"""

from dataclasses import KW_ONLY, replace
from typing import Annotated, Literal

from pydantic import Field

from utils.data import VALIDATION_IMAGES
from utils.validation import CoerceTuple, Degrees, NotNegative, Positive, UnitInterval, checked


@checked
class Recipe:
    """One way to train a network.

    To train otherwise give a recipe another value, as below; never change a default here: a run's
    key leaves fields at their defaults out, so that a new field can come with a neutral one.

    Raises:
        ValueError: for a value of another type or outside its range; one line names the field.
    """

    _: KW_ONLY
    optimizer: Literal["sgd", "adamw"] = "sgd"  # built by `_optimizer` in training.py
    learning_rate: Annotated[float, Field(gt=0)] = 0.01  # initial
    momentum: UnitInterval = 0.9  # SGD only
    nesterov: bool = False  # SGD only
    weight_decay: NotNegative = 0.0
    batch_size: Positive = 128  # images
    epochs: Positive = 15
    # "linear" falls to 0 after the last step, "step" decays after the milestones, "plateau" where
    # the validation loss stops falling. "plateau on test" replicates the original's mistake: it
    # reads the test loss.
    schedule: Literal["constant", "plateau", "plateau on test", "step", "linear"] = "constant"
    warm_up: NotNegative = 0.0  # epochs at the start over which the rate rises from a tenth
    patience: Annotated[int, Field(ge=0)] = 1  # epochs without a lower loss, before "plateau" acts
    milestones: Annotated[tuple[Positive, ...], CoerceTuple] = ()  # epochs before "step" decays
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1  # factor of "plateau" and "step"
    # Augmentation: every image is transformed anew in every epoch.
    rotations: Annotated[tuple[Degrees, ...], CoerceTuple] = ()  # each adds a uniform [-r, r]
    translate: UnitInterval = 0.0  # share of the side; uniform [-t, t] along each axis
    scale: Annotated[float, Field(ge=0, le=0.9)] = 0.0  # zoom factor uniform in [1 - s, 1 + s]
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, uniform [-s, s]
    calm_epochs: Annotated[int, Field(ge=0)] = 0  # the last, whose augmentation is scaled by `calm`
    calm: UnitInterval = 1 / 3
    ema_decay: UnitInterval = 0.0  # per step; the EMA of the weights is measured; 0 for none
    ema_warmup: Literal[False] = False  # unused; kept because existing records contain it
    validation: bool = False  # hold training images out, and measure on them
    held_out: Annotated[int, Field(ge=1, lt=60_000)] = VALIDATION_IMAGES  # images, for validation

    def __post_init__(self):
        if self.schedule == "plateau" and not self.validation:
            raise ValueError("recipe: plateau reads the validation loss: set validation=True")
        if self.warm_up > self.epochs:
            raise ValueError(
                f"recipe: warm_up lasts longer than the {self.epochs} epochs: lower it"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("recipe: nesterov needs a momentum: set momentum, such as 0.9")
        if self.schedule.startswith("plateau") and self.warm_up:
            raise ValueError("recipe: plateau has no warm_up: leave it at 0, or choose a schedule")

    @property
    def augments(self) -> bool:
        """Whether training images are augmented at all."""
        return bool(self.rotations or self.translate or self.scale or self.shear)


# Of the ten, each a delta of the one before, and of the finals, which the study's searches chose.
RECIPES: dict[str, Recipe] = {}
RECIPES["constant"] = Recipe()
RECIPES["rotation"] = replace(RECIPES["constant"], rotations=(6.9,))
RECIPES["plateau"] = replace(
    RECIPES["rotation"], rotations=(6.9, 15.0), learning_rate=0.075, schedule="plateau",
    validation=True,
)  # fmt: skip
RECIPES["final"] = Recipe(
    optimizer="adamw", learning_rate=0.01, weight_decay=0.01, warm_up=0.5, batch_size=64,
    schedule="linear", rotations=(10.0,), translate=0.05, scale=0.05, shear=5.0, ema_decay=0.998,
)  # fmt: skip


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step number `step` of a run, counted from 0.

    Raises:
        ValueError: for the plateau schedules, which depend on the run; a record's history has it.
    """
    rate = recipe.learning_rate
    if step < recipe.warm_up * steps_per_epoch:
        rate *= 0.1 + 0.9 * step / (recipe.warm_up * steps_per_epoch)
    match recipe.schedule:
        case "constant":
            return rate
        case "step":
            drops = sum(step // steps_per_epoch >= epoch for epoch in recipe.milestones)
            return rate * recipe.decay**drops
        case "linear":
            return rate * (1 - step / (steps_per_epoch * recipe.epochs))
    raise ValueError(f"{recipe.schedule!r} depends on the run: see the history of its record")


def changes(before, after) -> dict[str, tuple]:
    """What one recipe or config changed against another: {field: (before, after)}."""
    old, new = vars(before), vars(after)
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}
