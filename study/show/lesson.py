"""What a "Try it" cell calls: change one number, and compare the run with the recorded ones."""

from models import Config
from study.digit import Picture, Reading, read_digit
from study.records import Record
from study.runs import recorded, runs, wanted_runs
from study.show import pictures, plots
from utils.figures import show
from utils.recipes import Recipe
from utils.validation import OneLineError

EPOCHS = 2  # of a changed run, so that a laptop trains it within a minute or two


def try_it(
    experiment: str | int,
    *,
    recipe: Recipe | dict | None = None,
    config: Config | dict | None = None,
) -> None:
    """Run an experiment with something changed, and draw it over the range of its seeds.

    Arguments as for `runs`; a changed run has `EPOCHS` epochs unless its recipe says otherwise.
    With nothing changed the first seed is replayed. An error is printed in one line.
    """
    try:
        (run,) = wanted_runs(experiment, 0, recipe=recipe, config=config)
        if run.name != str(experiment) and (recipe is None or isinstance(recipe, dict)):
            recipe = {"epochs": EPOCHS} | (recipe or {})
        (mine,) = runs(experiment, 0, recipe=recipe, config=config)
        others = recorded(experiment)[str(experiment)]
        show(plots.tried(mine, others))
        last = min(len(mine.history), len(others[0].history)) - 1
        band = [run.train_accuracy[last] for run in others]
        print(f"train accuracy after epoch {last + 1}: {mine.train_accuracy[last]:.2f} %", end="; ")
        print(f"of the recorded seeds {min(band):.2f} to {max(band):.2f} %")
    except (OneLineError, ValueError) as error:
        print(error)


def show_digit(picture: Picture, run: Record) -> Reading | None:
    """Show a network's input for a picture of a digit, and its answer; print an error in one line.

    Arguments as for `study.digit.read_digit`.
    """
    try:
        reading = read_digit(picture, run)
    except OneLineError as error:
        return print(error)
    show(pictures.answer(reading))
    return reading
