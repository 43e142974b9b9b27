import copy
import shutil
from dataclasses import replace

import pytest
from scipy import stats

from study import statistics as study
from study import verdict as verdict_command
from study.commands import status
from study.records import dumps
from study.statistics import Interval, Spread, difference, share_interval, spread, verdict
from study.store import STUDY, load, load_all
from tests.conftest import of_study


def altered(record, **fields):
    """A copy of a record with other fields, which as a record of its own would be refused."""
    changed = copy.copy(record)
    for name, value in fields.items():
        object.__setattr__(changed, name, value)
    return changed


def with_accuracies(last, parameters=7_000, seed=0):
    """A run of model 7 with its last test accuracies, its size and its seed replaced."""
    record = of_study(7)[0]
    rows = [replace(record.history[-1], test_accuracy=accuracy) for accuracy in last]
    history, run = (*record.history[: -len(last)], *rows), replace(record.run, seed=seed)
    return altered(record, run=run, history=history, parameters=parameters)


def ending(accuracies):
    """Made-up runs that end at these test accuracies, one a seed."""
    return [with_accuracies([value], seed=seed) for seed, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("last", "parameters", "missing"),
    [
        ([99.4] * 15, 7_999, []),
        ([99.39] * 10 + [99.4] * 5, 7_999, []),
        ([99.5] * 12 + [99.39, 99.5, 99.5], 7_999, ["accuracy"]),
        ([99.5] * 15, 8_000, ["size"]),
        ([99.5] * 16, 7_999, ["epochs"]),
        ([99.0] * 16, 8_000, ["accuracy", "epochs", "size"]),
    ],
)
def test_verdict(last, parameters, missing):
    held = verdict(with_accuracies(last, parameters))
    assert (held.met, held.missing) == (not missing, missing)


def test_figures_are_those_of_the_final_epoch():
    run = with_accuracies([99.9, 99.9, 99.9, 99.9, 99.0])
    train = run.history[-1].train_accuracy
    expected = {
        "final_test": 99.0, "final_train": train, "final_gap": train - 99.0, "late_range": 0.9,
        "best_test": 99.9, "late_test": 99.72, "selection_bias": 0.9, "lowest_of_last": 99.0,
    }  # fmt: skip
    found = {name: getattr(study, name)([run]).mean for name in expected}
    assert found == pytest.approx(expected)
    good = with_accuracies([99.5] * 5)
    assert study.runs_meeting_brief([good, run, good]) == 2


def test_number_formats_are_counted_where_runs_differ():
    assert study.precisions(of_study("tiny-final")) == "float32"
    assert study.precisions(of_study("wild-final-milder")) == "14 bfloat16, 6 float32"


def test_spread_carries_every_value():
    figure = spread([99.0, 99.1, 99.2])
    assert figure.values == (99.0, 99.1, 99.2)
    assert (figure.mean, figure.sd, figure.n) == (pytest.approx(99.1), pytest.approx(0.1), 3)
    assert str(figure) == "99.10 ± 0.10 % (n = 3)"
    assert str(spread([99.0])) == "99.00 % (n = 1)"
    assert spread([99.0]).sd is None
    assert str(Spread((1.0, 2.0), "s")) == "1.50 ± 0.71 s (n = 2)"
    with pytest.raises(ValueError, match="no runs are recorded"):
        spread([])


def test_difference_is_welch_s_interval_by_hand():
    change = difference(ending([99.25, 99.35]), ending([99.0, 99.1]))
    # Both variances are 0.005: the error is sqrt(0.005/2 + 0.005/2), on 2 degrees of freedom.
    half = 4.302653 * 0.005**0.5
    expected = 0.25, 0.25 - half, 0.25 + half
    assert (change.value, change.low, change.high) == pytest.approx(expected, abs=1e-6)
    assert not change.clear  # 3.5 standard errors, but two seeds each
    assert str(change) == "+0.25 points (95 % interval -0.05 to +0.55)"


def test_difference_agrees_with_scipy_on_unequal_spreads():
    a, b = [99.3, 99.5, 99.4, 99.1, 99.6], [99.0, 99.01, 99.02]
    for after, before, clear in ((a, b, True), (b, a, True), (a, a, False)):
        change = difference(ending(after), ending(before))
        test = stats.ttest_ind(after, before, equal_var=False)
        assert (change.low, change.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert change.clear == (test.pvalue < 0.05) == clear


def test_an_interval_shows_on_which_side_of_zero_it_ends():
    assert str(Interval(-0.04, -0.07, -0.004)).endswith("(95 % interval -0.070 to -0.004)")
    assert str(Interval(0.0, -0.05, 0.05)) == "+0.00 points (95 % interval -0.05 to +0.05)"


def test_difference_needs_two_seeds_and_stands_equal_ones():
    one, two = ending([99.1]), ending([99.1, 99.2])
    for after, before in ((one, two), (two, one), (one, one)):
        with pytest.raises(ValueError, match="two seeds or more of each experiment"):
            difference(after, before)
    with pytest.raises(ValueError, match="on different data, and cannot be compared"):
        difference(two, [altered(run, data_checksum="0") for run in two])
    alike = difference(ending([99.5, 99.5]), ending([99.0, 99.0]))
    assert (alike.value, alike.low, alike.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(19, 20, 0.751, 0.999), (20, 20, 0.832, 1), (0, 20, 0, 0.168), (3, 5, 0.147, 0.947)],
)
def test_share_interval_is_clopper_and_pearson_s(successes, trials, low, high):
    assert share_interval(successes, trials) == pytest.approx((low, high), abs=5e-4)


def test_verdict_prints_every_committed_test_figure_once(capsys):
    committed = [record for record in load_all([STUDY]).values() if record.run.measure_test]
    assert verdict_command.main(["--records", str(STUDY)]) == 0
    *rows, _, last = capsys.readouterr().out.splitlines()[3:]
    assert last == f"records that hold: {len(committed)}; weights were not looked at: --verify does"
    assert len(rows) == len(committed)
    for row, record in zip(rows, committed, strict=True):
        held = verdict(record)
        ends = record.train_accuracy[-1], record.test_accuracy[-1], held.worst_of_last
        counts = str(record.run.seed), f"{record.parameters:,}", str(len(record.history))
        assert row.split()[:7] == [record.run.name, *counts, *(f"{end:.2f}" for end in ends)]
        assert row.endswith(" met" if held.met else ", ".join(held.missing))


def test_verdict_looks_at_weights_where_asked(tmp_path, capsys):
    shutil.copytree(STUDY / "models" / "1", tmp_path / "1")
    options = ["--records", str(tmp_path), "--verify"]
    assert verdict_command.main(options) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("1 networks whose weights are kept were measured again and agree")
    weights = tmp_path / "1" / "seed-00.npz"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert verdict_command.main(options[:-1]) == 0
    assert not capsys.readouterr().err
    assert status(lambda: verdict_command.main(options)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(weights) in line


def test_verdict_believes_no_record_under_another_models_name(tmp_path, capsys):
    shutil.copytree(STUDY / "models" / "1", tmp_path / "1")
    path = tmp_path / "1" / "seed-00.json"
    record = load(path)
    path.write_text(dumps(replace(record, run=replace(record.run, name="9"))))
    assert verdict_command.main(["--records", str(tmp_path)]) == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith(f"{path} is left out: it says that it is of 9, whose network or recipe")
    rows = [row.split()[:2] for row in output.out.splitlines()[3:]]
    assert ["9", "0"] not in rows
    assert ["1", "1"] in rows


def test_verdict_without_records(tmp_path, capsys):
    assert verdict_command.main(["--records", str(tmp_path)]) == 1
    assert "no runs are recorded" in capsys.readouterr().err
