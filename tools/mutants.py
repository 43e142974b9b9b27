"""Plant bugs, one at a time in a copy, and check that a test fails: `python -m tools.mutants`.

A unit test checks that each bug's place stands exactly once in its file.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from utils.data import ROOT

SKIPPED = shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", ".*_cache")


class Mutant(NamedTuple):
    """A bug: what is replaced in which file, and the test that must fail then."""

    bug: str
    path: str
    old: str
    new: str
    test: str


MUTANTS = (
    Mutant("test images are trained on", "utils/training.py", "train, validation = data.train, None", "train, validation = data.test, None", "tests/test_training.py::test_the_test_set_decides_nothing"),
    Mutant("validation images are trained on", "utils/training.py", "train, validation = split_validation(", "_, validation = split_validation(", "tests/test_training.py::test_validation_images_are_not_trained_on"),
    Mutant("the schedule watches the test loss", "utils/training.py", "(tested if on_test else validated)", "(tested or validated)", "tests/test_training.py::test_the_test_set_decides_nothing"),
    Mutant("the EMA is not updated", "utils/training.py", "self.ema.update()", "pass", "tests/test_training.py::test_the_measured_weights_are_the_moving_average"),
    Mutant("the seed is no part of a run's key", "study/records.py", '"seed": self.seed,', '"seed": 0,', "tests/test_records.py::test_the_key_names_everything_that_decides_a_run"),
    Mutant("a broken seal is let pass", "study/records.py", "if not mark or seal !=", "if not mark and seal !=", "tests/test_records.py::test_every_changed_byte_of_a_record_is_found"),
    Mutant("the checksum of weights is skipped", "study/store.py", "if weights_checksum(state) != record.weights_sha256:", "if False:", "tests/test_store.py::test_other_weights_than_recorded"),
    Mutant("pickled code in weights is run", "study/store.py", "allow_pickle=False", "allow_pickle=True", "tests/test_store.py::test_weights_with_pickled_code_are_refused"),
    Mutant("dropout is on while measuring", "utils/evaluation.py", "    network.eval()\n    images", "    network.train()\n    images", "tests/test_digit.py::test_predict_mends_what_it_can"),
    Mutant("the best epoch is reported as the final one", "study/statistics.py", "return spread([run.test_accuracy[-1] for run in runs])", "return spread([max(run.test_accuracy) for run in runs])", "tests/test_statistics.py::test_figures_are_those_of_the_final_epoch"),
    Mutant("min and max are swapped in the verdict", "study/statistics.py", "worst = min(record.test_accuracy", "worst = max(record.test_accuracy", "tests/test_statistics.py::test_verdict"),
    Mutant("spreads are taken as equal", "study/statistics.py", "equal_var=False", "equal_var=True", "tests/test_statistics.py::test_difference_agrees_with_scipy_on_unequal_spreads"),
    Mutant("a finding may hang on a single seed", "study/findings.py", "if min(map(len, rest)) > 1 and", "if False and", "tests/test_findings.py::test_every_outcome_occurs"),
    Mutant("shifts are half as wide", "utils/augmentation.py", "uniform(2 * recipe.translate), uniform(2", "uniform(recipe.translate), uniform(2", "tests/test_augmentation.py::test_translation_scale_and_shear_stay_within_their_limits"),
    Mutant("the compiled pool keeps the smallest", "fast/spatial.py", "if value > best or value != value:", "if value < best or value != value:", "tests/test_fast.py::test_max_pool_equals_torch"),
    Mutant("a digit's centre of mass is a pixel off", "study/digit.py", "round(IMAGE_SIZE / 2 - centre)", "round(IMAGE_SIZE / 2 - 1 - centre)", "tests/test_digit.py::test_a_digit_of_mnist_stays_what_it_is"),
)  # fmt: skip


def _pytest(copy: Path, *names: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def caught_all() -> dict[str, bool]:
    """Every bug, and whether its test catches it; prints a line for each."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(ROOT, Path(folder) / "project", ignore=SKIPPED)
        sound = _pytest(copy, *{mutant.test for mutant in MUTANTS})
        if sound.returncode:
            raise RuntimeError(f"the tests fail without a planted bug: {sound.stdout[-500:]}")
        for mutant in MUTANTS:
            path = copy / mutant.path
            before = path.read_text(encoding="utf-8")
            path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
            run = _pytest(copy, mutant.test)
            path.write_text(before, encoding="utf-8")
            found[mutant.bug] = run.returncode == 1 and f"FAILED {mutant.test}" in run.stdout
            word = "caught" if found[mutant.bug] else "MISSED"
            print(f"{word}  {mutant.bug}: {mutant.test}", flush=True)
    return found


def main() -> int:
    """Command line; returns the exit status: 1 if a bug is not caught."""
    found = caught_all()
    print(f"{sum(found.values())} of {len(found)} planted bugs are caught")
    return not all(found.values())


if __name__ == "__main__":
    sys.exit(main())
