"""How each network is trained: recipes, each a delta of another.

A recipe says everything about a run that is not the network, the seed or the data.
"""

import itertools
import operator
from dataclasses import KW_ONLY, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

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
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"  # built by `optimizer` below
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
    # Strokes, changed after the affine transform: each image has its own draws.
    elastic: NotNegative = 0.0  # SD of a smooth displacement, share of half the side
    thickness: UnitInterval = 0.0  # uniform [-t, t]: from erosion to dilation by 3x3 pixels
    low_resolution: UnitInterval = 0.0  # share of images reduced to 8 or 12 pixels and enlarged
    ink: NotNegative = 0.0  # pixels to the power exp(u), u uniform [-i, i]
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
        return bool(self.rotations or self.translate or self.scale or self.shear or self.distorts)

    @property
    def distorts(self) -> bool:
        """Whether strokes are changed, beyond an affine transform."""
        return any((self.elastic, self.thickness, self.low_resolution, self.ink))


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


class Muon(torch.optim.AdamW):
    """Muon for the weights of convolutions across channels, AdamW for all others.

    A step of Muon is the orthogonal matrix next to the average of the gradients, as large as
    AdamW's would be. Unlike torch.optim.Muon it computes matrices of one shape together, which
    takes a tenth of the time.
    Sources: Jordan et al., Muon, 2024; Liu et al., Muon is scalable for LLM training, 2025.
    """

    MOMENTUM = 0.95

    def __init__(self, parameters: list[Tensor], **settings):
        super().__init__(parameters, **settings)
        shape = operator.attrgetter("shape")
        mixing = sorted((p for p in parameters if p.dim() == 4 and p.shape[1] > 1), key=shape)
        alike = itertools.groupby(mixing, key=shape)
        self.stacks = [(each := list(group), torch.zeros_like(_stack(each))) for _, group in alike]

    @torch.no_grad()
    def step(self) -> None:
        """One step; as everywhere, parameters without a gradient stay as they are."""
        rate, decay = (self.param_groups[0][name] for name in ("lr", "weight_decay"))
        for parameters, average in self.stacks:
            gradients = _stack([parameter.grad for parameter in parameters])
            average.mul_(self.MOMENTUM).add_(gradients)
            steps = orthogonal(gradients + self.MOMENTUM * average)
            size = 0.2 * max(steps.shape[1:]) ** 0.5
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.mul_(1 - rate * decay).sub_(step.view_as(parameter), alpha=rate * size)
                parameter.grad = None  # so that AdamW leaves it alone
        super().step()


def _stack(kernels: list[Tensor]) -> Tensor:
    return torch.stack([kernel.flatten(1) for kernel in kernels])


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with all singular values near 1 (0.7 to 1.2), by five steps."""
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x


def optimizer(parameters: list[Tensor], recipe: Recipe, device: str) -> torch.optim.Optimizer:
    """The optimizer that a recipe names."""
    fused = torch.device(device).type in ("cpu", "cuda")
    common = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": fused}
    momentum = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    kinds = {
        "sgd": (torch.optim.SGD, momentum),
        "adamw": (torch.optim.AdamW, {}),
        "muon": (Muon, {}),
    }
    kind, own = kinds[recipe.optimizer]
    return kind(parameters, **common, **own)


def changes(before, after) -> dict[str, tuple]:
    """What one recipe or config changed against another: {field: (before, after)}."""
    old, new = vars(before), vars(after)
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}
