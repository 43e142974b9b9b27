"""What a "Try it" cell calls: change one number, and see the run among the recorded ones."""

from models import Config
from study.digit import Reading, read_digit
from study.records import Record
from study.runs import recorded, runs, wanted_runs
from study.show import pictures, plots
from utils.figures import show
from utils.recipes import Recipe
from utils.validation import OneLineError

EPOCHS = 2  # of a changed run, so that a laptop answers within a minute or two


def try_it(
    experiment: str | int,
    *,
    recipe: Recipe | str | dict | None = None,
    config: Config | dict | None = None,
) -> None:
    """Run an experiment with something changed, and draw it over the spread of its seeds.

    With nothing changed its first seed is replayed. What goes wrong is said in one line.

    Args:
        experiment: as for `runs`.
        recipe: the fields to change, e.g. {"learning_rate": 0.02}, of `EPOCHS` epochs unless they
            say otherwise; or a whole recipe, or the name of one.
        config: likewise, of the network.
    """
    try:
        (run,) = wanted_runs(experiment, 0, recipe=recipe, config=config)
        if run.name != str(experiment) and (recipe is None or isinstance(recipe, dict)):
            recipe = {"epochs": EPOCHS} | (recipe or {})
        (mine,) = runs(experiment, 0, recipe=recipe, config=config)
        show(plots.tried(mine, recorded([experiment])[str(experiment)]))
    except (OneLineError, ValueError) as error:
        print(error)


def show_digit(picture, run: Record) -> Reading | None:
    """Read a picture of a digit and show what the network saw; a bad one is said in one line.

    Args:
        picture: a path, a PIL image, or an array, as for `study.digit.as_mnist`.
        run: the recorded run whose network answers.
    """
    try:
        reading = read_digit(picture, run)
    except OneLineError as error:
        print(error)
        return None
    show(pictures.answer(reading))
    return reading
