"""Everything the study trains: each experiment with its seeds, in the order of the queue.

docs/plan.md says why; what is recorded in records/ is part of this (a test), and `make evidence`
trains what is missing.
"""

from dataclasses import dataclass, field, replace

from models import EVERY_3X3, MODELS, Config, SeparableConfig
from utils.recipes import CANDIDATES, RECIPES, SHORT_CANDIDATES, Recipe
from utils.validation import short_repr


@dataclass(frozen=True)
class Experiment:
    """A network, the recipe that trains it, and the seeds that the study wants of it."""

    config: Config
    recipe: Recipe
    seeds: tuple[int, ...] = (0, 1, 2)
    measure_test: bool = field(default=True, kw_only=True)  # False: a search, the test set is shut
    reference: bool = field(default=False, kw_only=True)  # float32 and torch's own layers
    keep: bool = field(default=False, kw_only=True)  # commit the weights of every seed, not of 0

    def keeps(self, seed: int) -> bool:
        """Whether that seed's weights are committed (.gitignore says the same, a test proves)."""
        return self.measure_test and not self.reference and (self.keep or seed == 0)


@dataclass(frozen=True)
class Trial:
    """An idea: what it is, and the experiment that has all but it."""

    idea: str
    base: str
    taken: bool = False  # into a final's recipe or network


_CALM = "calm", "warps a third as strong in the last 5 epochs"
_SILU = "silu", "SiLU instead of ReLU"
_NO_DROPOUT = "dropout-0", "no dropout"
_NARROWER = "narrow", "narrower warps: shift 3 %, no zoom, no shear"
THREE, FIVE, TEN, TWENTY = (tuple(range(count)) for count in (3, 5, 10, 20))
EXPERIMENTS: dict[str, Experiment] = {}
TRIALS: dict[str, Trial] = {}


def _trial(
    base: str, name: str, idea: str, *, config: dict | None = None, taken: bool = False, **recipe
) -> None:
    """Enter an idea among the trials: the experiment `base` with some fields changed."""
    made, prefix = EXPERIMENTS[base], base.removesuffix("-base")
    config, recipe = replace(made.config, **(config or {})), replace(made.recipe, **recipe)
    EXPERIMENTS[f"{prefix}-{name}"] = replace(made, config=config, recipe=recipe)
    TRIALS[f"{prefix}-{name}"] = Trial(idea, base, taken)


def _final(name: str, like: str, **recipe) -> None:
    """The network of the experiment `like` under the finals' recipe, all its weights kept."""
    recipe = replace(RECIPES["final"], **recipe)
    EXPERIMENTS[f"{name}-final"] = Experiment(EXPERIMENTS[like].config, recipe, TWENTY, keep=True)


# The ten.
for _model in range(1, 8):
    _seeds = FIVE if _model < 4 else TEN
    EXPERIMENTS[str(_model)] = Experiment(MODELS[_model], RECIPES["constant"], _seeds)
EXPERIMENTS["8"] = Experiment(MODELS[8], RECIPES["rotation"], TEN)
EXPERIMENTS["9"] = Experiment(MODELS[9], RECIPES["plateau"], TEN)
EXPERIMENTS["10"] = Experiment(MODELS[10], RECIPES["plateau"], TEN)
EXPERIMENTS["9-steps"] = Experiment(MODELS[9], RECIPES["steps"])
EXPERIMENTS["10-steps"] = Experiment(MODELS[10], RECIPES["steps"])
EXPERIMENTS["9-short"] = Experiment(MODELS[9], RECIPES["short"], FIVE)
# Ideas for the finals, compared on 10,000 training images that are held out for it. Each changes
# one thing of its base; docs/plan.md has the rule by which they are taken.
_SEARCHED = replace(RECIPES["steps"], validation=True, held_out=10_000)
_WIDER = {"translate": 0.05, "scale": 0.05, "shear": 5.0}
_ADAMW = {
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warm_up": 0.5,
    "batch_size": 128,
    "schedule": "linear",
    "milestones": (),
    "nesterov": False,
}
EXPERIMENTS["10-trial-base"] = Experiment(MODELS[10], _SEARCHED, THREE, measure_test=False)
_trial("10-trial-base", *_NO_DROPOUT, config={"dropout": 0.0})
_trial("10-trial-base", *_CALM, calm_epochs=5)
_trial("10-trial-base", "adamw", "AdamW, rising then falling to 0, batches of 128", taken=True,
       **_ADAMW)  # fmt: skip
_trial("10-trial-base", "linear", "rate 0.2, falling to 0 evenly", learning_rate=0.2,
       schedule="linear", milestones=())  # fmt: skip
_trial("10-trial-base", "average", "a longer average, 0.999", ema_decay=0.999)
_trial("10-trial-base", "wider", "wider warps: shift 5 %, zoom 5 %, shear 5 degrees", taken=True,
       **_WIDER)  # fmt: skip
_trial("10-trial-base", "rate", "rate 0.15 instead of 0.1", learning_rate=0.15)
_trial("10-trial-base", *_SILU, config={"activation": "silu"})
# Round 2: AdamW and wider warps gained 0.02 points or more; their combination, and ideas on top.
_trial(
    "10-trial-base", "adamw-wider", "AdamW and wider warps together", **_ADAMW, **_WIDER, taken=True
)
_trial("10-trial-adamw-wider", *_CALM, calm_epochs=5)
_trial("10-trial-adamw-wider", *_NO_DROPOUT, config={"dropout": 0.0})
_trial("10-trial-adamw-wider", "rate", "rate 0.02 instead of 0.01", learning_rate=0.02)
_trial("10-trial-adamw-wider", "batch-64", "batches of 64", batch_size=64, taken=True)
# Round 3: of those, batches of 64 gained most, a rate of 0.02 enough; both, and no dropout again.
# Neither adds to batches of 64, which alone are taken.
_trial("10-trial-adamw-wider-batch-64", "rate", "rate 0.02 instead of 0.01", learning_rate=0.02)
_trial("10-trial-adamw-wider-batch-64", *_NO_DROPOUT, config={"dropout": 0.0})
# What they chose, now measured on the test set.
_final("9", "9")
_final("10", "10")
# A second body, for fewer parameters: rounds of its own, begun with network 10's recipe.
EXPERIMENTS["small-trial-base"] = Experiment(
    SeparableConfig((14, 14, 14)), replace(_SEARCHED, **_ADAMW, calm_epochs=5), measure_test=False
)
_trial(
    "small-trial-base", "recipe", "network 10's: wider warps, as strong to the end, batches of 64",
    **_WIDER, calm_epochs=0, batch_size=64, taken=True,
)  # fmt: skip
_trial("small-trial-recipe", "one-norm", "one batch norm a block, not two",
       config={"inner_norm": False})  # fmt: skip
_trial("small-trial-recipe", *_CALM, calm_epochs=5)
_trial("small-trial-recipe", "growing", "10, 14 and 17 channels, not 14",
       config={"channels": (10, 14, 17)})  # fmt: skip
_trial("small-trial-recipe", "early", "4 blocks at 14x14, 2 at 7x7",
       config={"blocks": (1, 4, 2)})  # fmt: skip
_trial("small-trial-recipe", "size-16", "16 channels, not 14", config={"channels": (16, 16, 16)})
# Round 3, on 16 channels. In round 2 the warped training images were learned as well as network 10
# learns them, the held-out ones less well: so ideas against learning by heart.
for _name, _idea, _recipe in (
    ("stronger", "stronger warps: 15 degrees, shift 8 %, zoom 10 %, shear 8 degrees",
     {"rotations": (15.0,), "translate": 0.08, "scale": 0.1, "shear": 8.0}),
    ("rate", "rate 0.02 instead of 0.01", {"learning_rate": 0.02}),
    ("decay", "weight decay 0.1 instead of 0.01", {"weight_decay": 0.1}),
    ("batch-32", "batches of 32", {"batch_size": 32}),
):  # fmt: skip
    _trial("small-trial-recipe-size-16", _name, _idea, **_recipe)
# Round 4: none of them helped, so the other way round, images that are easier to learn.
_NARROW = {"translate": 0.03, "scale": 0.0, "shear": 0.0}
_trial("small-trial-recipe-size-16", *_NARROWER, **_NARROW)
_trial("small-trial-recipe-size-16", *_CALM, calm_epochs=5)
# Round 5: a parameter-free idea of the field that had not been tried.
_trial("small-trial-recipe-size-16", "skip", "blocks add to what they are given (skip)",
       config={"skip": True})  # fmt: skip
for _width in (18, 20, 22):
    _trial("small-trial-recipe", f"size-{_width}", f"{_width} channels, not 14",
           config={"channels": (_width,) * 3}, taken=_width == 20)  # fmt: skip
_trial("small-trial-recipe-size-20", *_CALM, calm_epochs=5, taken=True)
# Round 6: narrower warps gained enough on 16 channels; with 18, and further the same way.
_trial("small-trial-recipe-size-18", *_NARROWER, **_NARROW)
_trial("small-trial-recipe-size-16-narrow", "turn-5", "turned by up to 5 degrees, not 10",
       rotations=(5.0,))  # fmt: skip
_trial("small-trial-recipe-size-16-narrow", *_CALM, calm_epochs=5)
# The fewest parameters whose lowest of the last five epochs reaches `trials.LOWEST_OF_A_FINAL`.
_final("smallest", "small-trial-recipe-size-20", calm_epochs=5)
EXPERIMENTS["best-trial-base"] = replace(
    EXPERIMENTS["small-trial-recipe"], config=SeparableConfig((28, 32, 32), (1, 2, 2))
)
_trial("best-trial-base", *_CALM, calm_epochs=5)
_trial("best-trial-base", "deeper", "3 blocks a size of 26 channels, not 2 of 32",
       config={"channels": (26, 26, 26), "blocks": (1, 3, 3)}, taken=True)  # fmt: skip
# The highest score below 8,000 parameters.
_final("best", "best-trial-deeper")
# How few epochs do with it: the rate falls over as many.
for _epochs in (6, 8, 10, 12):
    _trial("best-trial-deeper", f"epochs-{_epochs}", f"{_epochs} epochs", epochs=_epochs,
           taken=_epochs == 12)  # fmt: skip
# The fewest of them whose lowest of the last five epochs reaches `trials.LOWEST_OF_A_FINAL`.
_final("short", "best-trial-deeper", epochs=12)
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
# Squeeze-and-Excitation for real, against as many parameters (within 4) spent on channels.
EXPERIMENTS["10-gates"] = Experiment(
    replace(MODELS[10], squeeze_excitation=4), RECIPES["final"], TEN
)
EXPERIMENTS["10-wider"] = Experiment(
    replace(MODELS[10], edges=(12, 12), late=(10, 13)), RECIPES["final"], TEN
)
# Ideas asked for the log alone, after the finals: they choose nothing.
for _size in (12, 10):
    _trial("small-trial-recipe", f"size-{_size}", f"{_size} channels, not 14",
           config={"channels": (_size, _size, _size)})  # fmt: skip
_trial("10-trial-adamw-wider", "average", "a longer average, 0.999", ema_decay=0.999)
_trial("10-trial-adamw-wider-batch-64", *_SILU, config={"activation": "silu"})
EXPERIMENTS["9-trial-base"] = Experiment(MODELS[9], _SEARCHED, THREE, measure_test=False)
_trial("9-trial-base", *_SILU, config={"activation": "silu"})
_trial("small-trial-base", "relu", "ReLU instead of SiLU", config={"activation": "relu"})
_trial("small-trial-base", "hardswish", "hard-swish instead of SiLU",
       config={"activation": "hardswish"})  # fmt: skip
_trial("small-trial-base", "average", "a longer average, 0.999", ema_decay=0.999)
_trial("small-trial-base", "sgd", "SGD as in the first search, rising first", optimizer="sgd",
       learning_rate=0.2, nesterov=True, batch_size=64, weight_decay=0.0)  # fmt: skip
for _name in ("9", "9-short"):
    EXPERIMENTS[f"{_name}-reference"] = replace(EXPERIMENTS[_name], seeds=FIVE, reference=True)
# The first search, on the 5,000 images that the plateau schedule sees: one seed for each idea, a
# second for the two best; then schedules over fewer epochs.
for _name, (_idea, _recipe) in CANDIDATES.items():
    _seeds = (0, 1) if _name in ("steps", "batch-128") else (0,)
    for _model in (9, 10):
        EXPERIMENTS[f"{_model}-search-{_name}"] = Experiment(
            MODELS[_model], _recipe, _seeds, measure_test=False
        )
        if _idea:
            TRIALS[f"{_model}-search-{_name}"] = Trial(_idea, f"{_model}-search-base")
for _epochs, _recipe in SHORT_CANDIDATES.items():
    _name = f"9-search-short-{_epochs}"
    EXPERIMENTS[_name] = Experiment(MODELS[9], _recipe, measure_test=False)
    TRIALS[_name] = Trial(f"{_epochs} epochs, the rate falling to 0 evenly", "9-search-steps")
FINALS = tuple(name for name in EXPERIMENTS if name.endswith("-final"))


def kind_of(name: str) -> str:
    """The folder of an experiment's records: models, finals, trials or ablations; else variations.

    A variation is a run of one's own, of no experiment here.
    """
    if name not in EXPERIMENTS:
        return "variations"
    if name.isdigit():
        return "models"
    if name in FINALS:
        return "finals"
    return "trials" if "-trial-" in name or "-search-" in name else "ablations"


def get_experiment(name: str | int) -> Experiment:
    """The experiment called `name`, e.g. 9 or "9-final".

    Raises:
        ValueError: if there is none; the message lists the valid names but those of trials.
    """
    if str(name) not in EXPERIMENTS:
        named = (n for n in EXPERIMENTS if not ("-trial-" in n or "-search-" in n))
        raise ValueError(
            f"unknown experiment {short_repr(name)}; the experiments are {', '.join(named)}"
        )
    return EXPERIMENTS[str(name)]
