"""Everything the study trains: one list of experiments with their seeds, in the order of the queue.

docs/plan.md says why; what is recorded in records/ is part of this (a test), and `make evidence`
trains what is missing.
"""

from dataclasses import KW_ONLY, dataclass, field, replace
from difflib import get_close_matches
from typing import Literal

import models
from models import EVERY_3X3, MODELS, Config, SeparableConfig
from utils.data import VALIDATION_IMAGES
from utils.recipes import RECIPES, Recipe
from utils.validation import short_repr

CALIBRATION_TRIAL = "wild-trial-muon"  # the trial on whose held-out images `SURE` was chosen


@dataclass(frozen=True)
class Experiment:
    """A network, the recipe that trains it, and the seeds that the study wants of it.

    An entry of the list has a network and a recipe, or a base and what it changes of the base's.
    """

    name: str
    kind: Literal["models", "finals", "ablations", "trials"]  # also the folder of its records
    seeds: tuple[int, ...]
    base: str = ""  # the experiment that it changes; a trial is compared with it
    changes: dict = field(default_factory=dict)  # fields of the base's network or recipe
    idea: str = "the base"  # of a trial, in words
    taken: bool = False  # a trial's idea, into a final's recipe or network
    _: KW_ONLY
    config: Config | None = None
    recipe: Recipe | None = None
    model: int | None = None  # of the ten, whose network it has or changes
    reference: bool = False  # in float32 and torch's own layers

    @property
    def measure_test(self) -> bool:
        """Whether its runs are measured on the test set, which is shut for trials."""
        return self.kind != "trials"

    def keeps(self, seed: int) -> bool:
        """Whether that seed's weights are committed (.gitignore says the same, a test proves)."""
        if self.name == CALIBRATION_TRIAL:
            return seed == 0
        return self.measure_test and not self.reference and (self.kind == "finals" or seed == 0)


def trial(
    name: str, base: str, idea: str, changes: dict, seeds: tuple[int, ...] = (0, 1, 2), **entry
) -> Experiment:
    """An entry of the kind "trials": an idea, and the experiment that has all but it."""
    return Experiment(name, "trials", seeds, base, changes, idea, **entry)


THREE, FIVE, TEN, TWENTY = (tuple(range(count)) for count in (3, 5, 10, 20))
# The recipe with which the first search began, on the plateau schedule's 5,000 held-out images, and
# the one that it chose. From there the second search began, with 10,000 images held out for it.
FIRST = Recipe(learning_rate=0.2, nesterov=True, batch_size=64, schedule="linear", rotations=(10.0,), translate=0.03, ema_decay=0.998, validation=True)  # fmt: skip
STEPS = {"schedule": "step", "learning_rate": 0.1, "milestones": (10, 13)}
LINEAR = {"schedule": "linear", "learning_rate": 0.2, "milestones": ()}
CHOSEN = replace(FIRST, **STEPS, validation=False)
SEARCHED = replace(FIRST, **STEPS, held_out=10_000)
ADAMW = {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "warm_up": 0.5, "batch_size": 128, "schedule": "linear", "milestones": (), "nesterov": False}  # fmt: skip
WIDER = {"translate": 0.05, "scale": 0.05, "shear": 5.0}
# Ideas that were tried on several bases.
CALM = "augmentation a third as strong in the last 5 epochs", {"calm_epochs": 5}
NO_DROPOUT = "no dropout", {"dropout": 0.0}
SILU = "SiLU instead of ReLU", {"activation": "silu"}
FASTER = "rate 0.02 instead of 0.01", {"learning_rate": 0.02}
LONGER = "a longer EMA, 0.999", {"ema_decay": 0.999}
NARROWER = "narrower augmentation: shift 3 %, no zoom, no shear", {"translate": 0.03, "scale": 0.0, "shear": 0.0}  # fmt: skip
# Strokes that nobody in MNIST drew: thick and thin, bent, of few pixels, pale.
OTHER_HANDS = {"rotations": (12.0,), "translate": 0.06, "scale": 0.1, "shear": 10.0, "elastic": 0.05, "thickness": 0.8, "low_resolution": 0.4, "ink": 0.5, "calm_epochs": 5, "calm": 0.5}  # fmt: skip
MUON = {"optimizer": "muon", "learning_rate": 0.02}
MUON_1X1 = "Muon for the 1x1 convolutions, rate 0.02", MUON
ALL_IMAGES = {"validation": False, "held_out": VALIDATION_IMAGES}  # of a trial that became a final
WITH_ITS_SCHEDULE = {"rotations": (7.0, 15.0), "schedule": "plateau on test", "validation": False}
# In the exercises; the `larger` ones took the places of four that two epochs of one seed did not show.
TRIED = {"1-try": {"learning_rate": 0.1}, "2-try": {"squeeze_1": 16}, "3-try": {"edges": (5, 6)}, "4-try": {"batch_norm": (3, 4, 5, 6)}, "5-try": {"dropout": 0.1}, "6-try": {"batch_norm": EVERY_3X3}, "7-try": {"middle": (20, 20)}, "8-try": {"rotations": (45.0,)}, "9-try": {"learning_rate": 0.01}, "10-try": {"rotations": (6.9, 0.0)}, "3-try-larger": {"batch_norm": EVERY_3X3}, "5-try-larger": {"dropout": 0.5}, "8-try-larger": {"rotations": (180.0,)}, "9-try-larger": {"learning_rate": 0.001}}  # fmt: skip
SMALL, SIZE_16 = "small-trial-recipe", "small-trial-recipe-size-16"  # bases of many

QUEUE: tuple[Experiment, ...] = (
    *(Experiment(str(model), "models", FIVE if model < 4 else TEN, config=MODELS[model],
                 recipe=RECIPES["constant"], model=model) for model in range(1, 8)),
    Experiment("8", "models", TEN, config=MODELS[8], recipe=RECIPES["rotation"], model=8),
    Experiment("9", "models", TEN, config=MODELS[9], recipe=RECIPES["plateau"], model=9),
    Experiment("10", "models", TEN, config=MODELS[10], recipe=RECIPES["plateau"], model=10),
    Experiment("9-steps", "ablations", THREE, config=MODELS[9], recipe=CHOSEN, model=9),
    Experiment("10-steps", "ablations", THREE, config=MODELS[10], recipe=CHOSEN, model=10),
    Experiment("9-short", "ablations", FIVE, "9-steps", {**LINEAR, "epochs": 10}),
    # Ideas for the finals, each of which changes one thing of its base; docs/plan.md has the rule.
    Experiment("10-trial-base", "trials", THREE, config=MODELS[10], recipe=SEARCHED, model=10),
    trial("10-trial-dropout-0", "10-trial-base", *NO_DROPOUT),
    trial("10-trial-calm", "10-trial-base", *CALM),
    trial("10-trial-adamw", "10-trial-base", "AdamW, rising then falling to 0, batches of 128", ADAMW, taken=True),
    trial("10-trial-linear", "10-trial-base", "rate 0.2, falling to 0 evenly", LINEAR),
    trial("10-trial-average", "10-trial-base", *LONGER),
    trial("10-trial-wider", "10-trial-base", "wider augmentation: shift 5 %, zoom 5 %, shear 5 degrees", WIDER, taken=True),
    trial("10-trial-rate", "10-trial-base", "rate 0.15 instead of 0.1", {"learning_rate": 0.15}),
    trial("10-trial-silu", "10-trial-base", *SILU),
    # Round 2: AdamW and wider augmentation gained 0.02 points or more; both, and ideas on top.
    trial("10-trial-adamw-wider", "10-trial-base", "AdamW and wider augmentation together", {**ADAMW, **WIDER}, taken=True),
    trial("10-trial-adamw-wider-calm", "10-trial-adamw-wider", *CALM),
    trial("10-trial-adamw-wider-dropout-0", "10-trial-adamw-wider", *NO_DROPOUT),
    trial("10-trial-adamw-wider-rate", "10-trial-adamw-wider", *FASTER),
    trial("10-trial-adamw-wider-batch-64", "10-trial-adamw-wider", "batches of 64", {"batch_size": 64}, taken=True),
    # Round 3: neither a rate of 0.02 nor no dropout adds to batches of 64, which alone are taken.
    trial("10-trial-adamw-wider-batch-64-rate", "10-trial-adamw-wider-batch-64", *FASTER),
    trial("10-trial-adamw-wider-batch-64-dropout-0", "10-trial-adamw-wider-batch-64", *NO_DROPOUT),
    Experiment("9-final", "finals", TWENTY, config=MODELS[9], recipe=RECIPES["final"], model=9),
    Experiment("10-final", "finals", TWENTY, config=MODELS[10], recipe=RECIPES["final"], model=10),
    # A second body, for fewer parameters: rounds of its own, begun with network 10's recipe.
    Experiment("small-trial-base", "trials", THREE, config=SeparableConfig((14, 14, 14)), recipe=replace(SEARCHED, **ADAMW, calm_epochs=5)),
    trial("small-trial-recipe", "small-trial-base", "network 10's: wider augmentation, as strong to the end, batches of 64", {**WIDER, "calm_epochs": 0, "batch_size": 64}, taken=True),
    trial("small-trial-recipe-one-norm", SMALL, "one batch norm a block, not two", {"inner_norm": False}),
    trial("small-trial-recipe-calm", SMALL, *CALM),
    trial("small-trial-recipe-growing", SMALL, "10, 14 and 17 channels, not 14", {"channels": (10, 14, 17)}),
    trial("small-trial-recipe-early", SMALL, "4 blocks at 14x14, 2 at 7x7", {"blocks": (1, 4, 2)}),
    trial("small-trial-recipe-size-16", SMALL, "16 channels, not 14", {"channels": (16, 16, 16)}),
    # Round 3, on 16 channels. In round 2 the augmented training images were learned as well as network
    # 10 learns them, the held-out ones less well: so ideas against memorising.
    trial("small-trial-recipe-size-16-stronger", SIZE_16, "stronger augmentation: 15 degrees, shift 8 %, zoom 10 %, shear 8 degrees", {"rotations": (15.0,), "translate": 0.08, "scale": 0.1, "shear": 8.0}),
    trial("small-trial-recipe-size-16-rate", SIZE_16, *FASTER),
    trial("small-trial-recipe-size-16-decay", SIZE_16, "weight decay 0.1 instead of 0.01", {"weight_decay": 0.1}),
    trial("small-trial-recipe-size-16-batch-32", SIZE_16, "batches of 32", {"batch_size": 32}),
    # Round 4: none of them helped, so the other way round, images that are easier to learn.
    trial("small-trial-recipe-size-16-narrow", SIZE_16, *NARROWER),
    trial("small-trial-recipe-size-16-calm", SIZE_16, *CALM),
    # Round 5: a parameter-free idea of the field that had not been tried.
    trial("small-trial-recipe-size-16-skip", SIZE_16, "blocks add to what they are given (skip)", {"skip": True}),
    trial("small-trial-recipe-size-18", SMALL, "18 channels, not 14", {"channels": (18, 18, 18)}),
    trial("small-trial-recipe-size-20", SMALL, "20 channels, not 14", {"channels": (20, 20, 20)}, taken=True),
    trial("small-trial-recipe-size-22", SMALL, "22 channels, not 14", {"channels": (22, 22, 22)}),
    trial("small-trial-recipe-size-20-calm", "small-trial-recipe-size-20", *CALM, taken=True),
    # Round 6: narrower augmentation gained enough on 16 channels; with 18, and further the same way.
    trial("small-trial-recipe-size-18-narrow", "small-trial-recipe-size-18", *NARROWER),
    trial("small-trial-recipe-size-16-narrow-turn-5", "small-trial-recipe-size-16-narrow", "rotated by up to 5 degrees, not 10", {"rotations": (5.0,)}),
    trial("small-trial-recipe-size-16-narrow-calm", "small-trial-recipe-size-16-narrow", *CALM),
    Experiment("smallest-final", "finals", TWENTY, "small-trial-recipe-size-20-calm", ALL_IMAGES),
    Experiment("best-trial-base", "trials", THREE, config=SeparableConfig((28, 32, 32), (1, 2, 2)), recipe=replace(RECIPES["final"], validation=True, held_out=10_000)),
    trial("best-trial-calm", "best-trial-base", *CALM),
    trial("best-trial-deeper", "best-trial-base", "3 blocks a size of 26 channels, not 2 of 32", {"channels": (26, 26, 26), "blocks": (1, 3, 3)}, taken=True),
    Experiment("best-final", "finals", TWENTY, "best-trial-deeper", ALL_IMAGES),
    trial("best-trial-deeper-epochs-6", "best-trial-deeper", "6 epochs", {"epochs": 6}),
    trial("best-trial-deeper-epochs-8", "best-trial-deeper", "8 epochs", {"epochs": 8}),
    trial("best-trial-deeper-epochs-10", "best-trial-deeper", "10 epochs", {"epochs": 10}),
    trial("best-trial-deeper-epochs-12", "best-trial-deeper", "12 epochs", {"epochs": 12}, taken=True),
    Experiment("short-final", "finals", TWENTY, "best-trial-deeper-epochs-12", ALL_IMAGES),
    trial("wild-trial", "best-trial-deeper", "other hands: thick, thin, bent, coarse and pale strokes", OTHER_HANDS, taken=True),
    trial("wild-trial-muon", "wild-trial", *MUON_1X1, taken=True),
    trial("wild-trial-muon-weaker", "wild-trial-muon", "strokes changed less", {"elastic": 0.03, "thickness": 0.5, "low_resolution": 0.25, "ink": 0.3}, taken=True),
    trial("best-trial-deeper-muon", "best-trial-deeper", *MUON_1X1, taken=True),
    trial("best-trial-deeper-muon-rate", "best-trial-deeper-muon", "rate 0.01 instead of 0.02", {"learning_rate": 0.01}),
    trial("best-trial-deeper-muon-elastic", "best-trial-deeper-muon", "elastic distortion, 3 % of half the side", {"elastic": 0.03}),
    trial("short-trial-muon-10", "best-trial-deeper-muon", "10 epochs", {"epochs": 10}),
    trial("short-trial-muon-8", "best-trial-deeper-muon", "8 epochs", {"epochs": 8}),
    trial("10-trial-muon", "10-trial-adamw-wider-batch-64", "Muon for all convolutions but the first, rate 0.02", MUON, taken=True),
    Experiment("10-final-muon", "finals", TWENTY, "10-trial-muon", ALL_IMAGES),
    Experiment("9-final-muon", "finals", TWENTY, "9-final", MUON),
    trial("wild-milder-late", "wild-trial-muon-weaker", "24, 28 and 28 channels, not 26, paid for by inner factors and summands", {"channels": (24, 28, 28), "inner_affine": False}, taken=True),
    trial("wild-milder-rate", "wild-trial-muon-weaker", "rate 0.03 instead of 0.02", {"learning_rate": 0.03}),
    Experiment("wild-final", "finals", TWENTY, "wild-trial-muon", ALL_IMAGES),
    Experiment("best-final-muon", "finals", TWENTY, "best-trial-deeper-muon", ALL_IMAGES),
    Experiment("wild-final-milder", "finals", TWENTY, "wild-milder-late", ALL_IMAGES),
    Experiment("tiny-trial-base", "trials", THREE, config=SeparableConfig((17, 17, 17), activation="hardswish", inner_affine=False), recipe=replace(SEARCHED, **ADAMW | {"batch_size": 64})),
    trial("tiny-trial-muon", "tiny-trial-base", *MUON_1X1, taken=True),
    trial("tiny-trial-muon-late", "tiny-trial-muon", "12, 17 and 20 channels, not 17", {"channels": (12, 17, 20)}),
    trial("tiny-trial-muon-wider", "tiny-trial-muon", "wider augmentation, a third as strong in the last 5 epochs", {**WIDER, "calm_epochs": 5}, taken=True),
    trial("tiny-trial-muon-silu", "tiny-trial-muon", "SiLU instead of hard-swish", {"activation": "silu"}),
    Experiment("tiny-final", "finals", TWENTY, "tiny-trial-muon-wider", ALL_IMAGES),
    Experiment("4-dropout", "ablations", TEN, "4", {"dropout": 0.01}),
    Experiment("4-norm-fewer", "ablations", TEN, "4", {"batch_norm": MODELS[5].batch_norm}),
    Experiment("8-warp", "ablations", TEN, "8", {"rotations": (6.9, 15.0)}),
    Experiment("8-schedule", "ablations", TEN, "8", {"learning_rate": 0.075, "schedule": "plateau", "validation": True}),
    # What the plateau schedule gained by watching the test loss, paired by seed with model 9. This
    # and the original's replication, which watched it too, are the only ones with that schedule.
    Experiment("9-leak", "ablations", TEN, "9", {"schedule": "plateau on test"}),
    # The original replicated as its code has it: its text brings augmentation in at model 8.
    *(Experiment(f"{model}-original", "ablations", FIVE, str(model), {"rotations": (7.0,)} if model < 9 else WITH_ITS_SCHEDULE) for model in range(1, 11)),
    Experiment("6-norm", "ablations", FIVE, "6", {"batch_norm": EVERY_3X3}),
    Experiment("7-norm-fewer", "ablations", FIVE, "7", {"batch_norm": MODELS[6].batch_norm}),
    Experiment("7-no-dropout", "ablations", FIVE, "7", {"dropout": 0.0}),
    Experiment("7-dropout-5", "ablations", FIVE, "7", {"dropout": 0.05}),
    # Squeeze-and-Excitation for real, against as many parameters (within 4) spent on channels.
    Experiment("10-gates", "ablations", TEN, "10-final", {"squeeze_excitation": 4}),
    Experiment("10-wider", "ablations", TEN, "10-final", {"edges": (12, 12), "late": (10, 13)}),
    # The exercises of the notebooks ("Try it"): two epochs of one seed; and five seeds of another rate.
    *(Experiment(name, "ablations", (0,), name.split("-")[0], {**tried, "epochs": 2}) for name, tried in TRIED.items()),
    Experiment("4-rate", "ablations", FIVE, "4", {"learning_rate": 0.02}),
    # Ideas asked for the log alone, after the finals: they choose nothing.
    trial("small-trial-recipe-size-12", SMALL, "12 channels, not 14", {"channels": (12, 12, 12)}),
    trial("small-trial-recipe-size-10", SMALL, "10 channels, not 14", {"channels": (10, 10, 10)}),
    trial("10-trial-adamw-wider-average", "10-trial-adamw-wider", *LONGER),
    trial("10-trial-adamw-wider-batch-64-silu", "10-trial-adamw-wider-batch-64", *SILU),
    Experiment("9-trial-base", "trials", THREE, config=MODELS[9], recipe=SEARCHED, model=9),
    trial("9-trial-silu", "9-trial-base", *SILU),
    trial("small-trial-relu", "small-trial-base", "ReLU instead of SiLU", {"activation": "relu"}),
    trial("small-trial-hardswish", "small-trial-base", "hard-swish instead of SiLU", {"activation": "hardswish"}),
    trial("small-trial-average", "small-trial-base", *LONGER),
    trial("small-trial-sgd", "small-trial-base", "SGD as in the first search, rising first", {**LINEAR, "optimizer": "sgd", "nesterov": True, "batch_size": 64, "weight_decay": 0.0}),
    Experiment("9-reference", "ablations", FIVE, "9", reference=True),
    Experiment("9-short-reference", "ablations", FIVE, "9-short", reference=True),
    # The first search, on the 5,000 images that the plateau schedule sees: one seed for each idea,
    # a second for the two best; then schedules over fewer epochs.
    Experiment("9-search-base", "trials", (0,), config=MODELS[9], recipe=FIRST, model=9),
    Experiment("10-search-base", "trials", (0,), config=MODELS[10], recipe=FIRST, model=10),
    *(
        trial(f"{model}-search-{name}", f"{model}-search-base", idea, changes, seeds)
        for name, idea, changes, seeds in (
            ("no-average", "no EMA of the weights", {"ema_decay": 0.0}, (0,)),
            ("half-rate", "rate 0.1 instead of 0.2", {"learning_rate": 0.1}, (0,)),
            ("batch-128", "batches of 128 instead of 64", {"batch_size": 128}, (0, 1)),
            ("shift-5", "shifts of 5 % instead of 3 %", {"translate": 0.05}, (0,)),
            ("steps", "rate 0.1, divided by 10 after epochs 10 and 13", STEPS, (0, 1)),
        )
        for model in (9, 10)
    ),
    *(trial(f"9-search-short-{each}", "9-search-steps", f"{each} epochs, the rate falling to 0 evenly", {**LINEAR, "epochs": each}) for each in (4, 6, 8, 10)),
)  # fmt: skip


def _resolved(entry: Experiment, known: dict[str, Experiment]) -> Experiment:
    """The entry with its base's network, recipe and model, changed as it says."""
    if not entry.base:
        return entry
    base, given = known[entry.base], entry.changes.items()
    config = replace(base.config, **{k: v for k, v in given if hasattr(base.config, k)})
    recipe = replace(base.recipe, **{k: v for k, v in given if not hasattr(base.config, k)})
    return replace(entry, config=config, recipe=recipe, model=base.model)


EXPERIMENTS: dict[str, Experiment] = {}
for _entry in QUEUE:
    EXPERIMENTS[_entry.name] = _resolved(_entry, EXPERIMENTS)
TRIALS = {name: made for name, made in EXPERIMENTS.items() if made.kind == "trials" and made.base}
FINALS = tuple(name for name, made in EXPERIMENTS.items() if made.kind == "finals")


def kind_of(name: str) -> str:
    """The folder of an experiment's records; "variations" for a run of no experiment here."""
    return EXPERIMENTS[name].kind if name in EXPERIMENTS else "variations"


def get_experiment(name: str | int) -> Experiment:
    """The experiment called `name`, e.g. 9 or "9-final".

    A network that was added to `MODELS` is trained by the recipe of the one before it.

    Raises:
        ValueError: if there is none; the message has the names nearest to it.
    """
    numbers = list(map(str, models.MODELS))
    if str(name) in numbers[1:] and str(name) not in EXPERIMENTS:
        place = numbers.index(str(name))
        base, config = get_experiment(numbers[place - 1]), list(models.MODELS.values())[place]
        return replace(base, name=str(name), base=base.name, config=config, model=None)
    if str(name) not in EXPERIMENTS:
        near = ", ".join(get_close_matches(str(name), EXPERIMENTS, cutoff=0))
        fault = f"unknown experiment {short_repr(name)}; nearest are {near}"
        raise ValueError(f"{fault}; docs/plan.md lists all")
    return EXPERIMENTS[str(name)]
