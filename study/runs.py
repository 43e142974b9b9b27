"""`runs(4)`: every seed of model 4, replayed from its record or trained now."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from models import MODELS, Config
from study.experiments import EXPERIMENTS, FINALS, Experiment, get_experiment
from study.records import Record, Run, as_config, as_recipe
from study.store import load_all, runs_folder, train, verify
from utils.data import Dataset, load_mnist
from utils.recipes import Recipe
from utils.training import EpochRow
from utils.validation import Seed, check, short_repr

FEW = 3  # seeds that train where none is recorded: enough for a spread, few enough to wait for


def runs(
    experiment: str | int,
    seeds: Iterable[int] | int | None = None,
    *,
    recipe: Recipe | dict | None = None,
    config: Config | dict | None = None,
    data: Dataset | None = None,
) -> list[Record]:
    """The records of an experiment, one per seed: replayed and verified, or trained now.

    Every record's seal is checked, and the first network that is kept is measured again. Prints
    one line for all that are replayed, and a line per epoch while one trains. A changed recipe or
    network that the study has under another name is replayed under that.

    Args:
        experiment: a name in `EXPERIMENTS`, e.g. 9 or "9-final".
        seeds: default all recorded ones that the study wants, or the first three, which then
            train; only seed 0 where recipe or config is changed.
        recipe: a `Recipe`, or the fields to change, e.g. {"epochs": 2}.
        config: a config of models.py, or the fields to change.
        data: default `load_mnist()`.

    Raises:
        ValueError: for unknown names, values out of range, or a recipe that does not fit the data.
        RecordError: if a record is damaged, or a new one cannot be stored.
        NonFiniteLossError, RunInterruptedError: finished runs stay stored.
    """
    data = load_mnist() if data is None else data
    if not isinstance(data, Dataset):
        raise ValueError(f"data: expected what load_mnist() returns, not {short_repr(data)}")
    stored, named = load_all(), get_experiment(experiment)
    wanted = wanted_runs(experiment, seeds, recipe=recipe, config=config)
    pairs = [(run, stored.get(run.key(data.checksum))) for run in wanted]
    if seeds is None:
        pairs = [pair for pair in pairs if pair[1]] or pairs[:FEW]
    replayed = [record for _, record in pairs if record]
    if str(experiment) not in EXPERIMENTS:
        print(f"{experiment} has no recipe of its own: it takes that of {named.base}")
    if replayed:
        line = f"{pairs[0][0].name}: replayed {_seeds(replayed)}"
        again = next((record for record in replayed if verify(record, data)), None)
        if again:
            line += f"; test accuracy of {_seeds([again])} re-measured and confirmed"
        print(line)
    return [record or _train(run, data) for run, record in pairs]


def wanted_runs(
    experiment: str | int,
    seeds: Iterable[int] | int | None = None,
    *,
    recipe: Recipe | dict | None = None,
    config: Config | dict | None = None,
) -> list[Run]:
    """What `runs` looks for, each seed once; arguments and errors as there."""
    named = get_experiment(experiment)
    recipe = _changed("recipe", named.recipe, recipe)
    config = _changed("config", named.config, config)
    changed = dataclasses.replace(named, recipe=recipe, config=config)
    if seeds is None:
        seeds = named.seeds if changed == named else (0,)
    elif isinstance(seeds, bytes) or not isinstance(seeds, Iterable):
        seeds = (seeds,)
    seeds = dict.fromkeys(check(Seed, seed, "seed") for seed in seeds)
    if not seeds:
        raise ValueError("seeds: there is none; give one or more, such as 0 or range(3)")
    name = _name(str(experiment), changed)
    return [Run(name, seed=seed, **_settings(changed)) for seed in seeds]


def named_rightly(run: Run) -> bool:
    """Whether a run is of the experiment whose name it bears, as that stands today."""
    return run.name not in EXPERIMENTS or _settings(EXPERIMENTS[run.name]) == _settings(run)


def _settings(experiment: Experiment | Run) -> dict:
    same = {name: getattr(experiment, name) for name in ("measure_test", "reference")}
    return {"config": as_config(experiment.config), "recipe": as_recipe(experiment.recipe)} | same


def _name(name: str, changed: Experiment) -> str:
    """The name of that experiment in the study, or one of its own for a variation."""
    for known in (name, *EXPERIMENTS):
        if _settings(get_experiment(known)) == _settings(changed):
            return known
    return f"{name}-varied-{Run('0', **_settings(changed)).key('')[:8]}"


def _changed(kind: str, named: Recipe | Config, given: Recipe | Config | dict | None):
    """`given` itself, or `named` with the given fields."""
    if given is None:
        return named
    if not isinstance(given, dict):
        try:
            return {"config": as_config, "recipe": as_recipe}[kind](given)
        except ValueError:
            allowed = f"a {type(named).__name__} or a dictionary of the fields to change"
            raise ValueError(f"{kind} must be {allowed}, not {short_repr(given)}") from None
    if unknown := given.keys() - vars(named).keys():
        names = ", ".join(map(str, unknown))
        raise ValueError(f"{kind} has no {names}; it has {', '.join(vars(named))}")
    return dataclasses.replace(named, **given)


def _train(run: Run, data: Dataset) -> Record:
    epochs = f"{run.recipe.epochs} epoch{'s' * (run.recipe.epochs > 1)}"
    print(f"training {run.title}, {epochs}", flush=True)
    callbacks = {
        "report": lambda row: print(epoch_line(row), flush=True),
        "expect": lambda seconds: print(f"this takes about {_rounded(seconds)}", flush=True),
    }
    record = train(run, data, runs_folder(), **callbacks)
    print(f"trained in {record.seconds:.0f} s and stored")
    return record


def _rounded(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 100 else f"{max(seconds, 1):.0f} s"


def _seeds(records: list[Record]) -> str:
    seeds = [record.run.seed for record in records]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def epoch_line(row: EpochRow) -> str:
    """One printed line for a finished epoch."""
    parts = [f"epoch {row.epoch:2d}  lr {row.learning_rate:.5f}"]
    for split in ("train", "validation", "test"):
        if (accuracy := getattr(row, f"{split}_accuracy")) is not None:
            parts.append(f"{split} {accuracy:5.2f} %")
    return "  ".join([*parts, f"{row.seconds:5.1f} s"])


def recorded(
    names: Iterable[str | int] | str | int | None = None, folders: list[Path] | None = None
) -> dict[str, list[Record]]:
    """The recorded runs of many experiments by name, without verifying or training any.

    Args:
        names: one or more; default those of the ten models that have run, and the finals of which
            all seeds have.
        folders: where to look; default `record_folders()`.

    Raises:
        ValueError: if no run of one of them is recorded.
        RecordError: if a record is damaged.
    """
    names = (names,) if isinstance(names, str | int) else names
    checksum, stored, found = load_mnist().checksum, load_all(folders), {}
    for name in map(str, names or (*MODELS, *FINALS)):
        keys = [run.key(checksum) for run in wanted_runs(name)]
        records = [stored[key] for key in keys if key in stored]
        if records and (names or name not in FINALS or len(records) == len(keys)):
            found[name] = records
        elif names is not None:
            train = f"python -m study.sweep --models {name} --store records"
            raise ValueError(f"no run of {name} is recorded; train some: {train}")
    return found
