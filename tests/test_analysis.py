import json
from dataclasses import replace

import pytest

from utils import verdict as verdict_command
from utils.analysis import (
    best_test,
    claim,
    difference,
    epochs_to_hold,
    evidence,
    final_gap,
    final_test,
    final_train,
    runs_meeting_brief,
    spread,
    verdict,
    wobble,
)
from utils.records import load_all


def with_accuracies(record, last, parameters=7_000):
    """The record with its last test accuracies replaced, and its size."""
    history = list(record.history)
    for offset, accuracy in enumerate(reversed(last), start=1):
        history[-offset] = replace(history[-offset], test_accuracy=accuracy)
    return replace(record, history=history, parameters=parameters)


@pytest.fixture(scope="module")
def record():
    return evidence(7)[0]


@pytest.mark.parametrize(
    ("last", "parameters", "met", "missing"),
    [
        ([99.4] * 5, 7_999, True, []),
        ([99.5, 99.5, 99.39, 99.5, 99.5], 7_999, False, ["accuracy"]),
        ([99.39, 99.4, 99.4, 99.4, 99.4, 99.4], 7_999, True, []),
        ([99.5] * 5, 8_000, False, ["size"]),
        ([99.0] * 5, 8_000, False, ["accuracy", "size"]),
    ],
)
def test_verdict(record, last, parameters, met, missing):
    held = verdict(with_accuracies(record, last, parameters))
    assert held.met is met
    assert held.missing == missing


def test_more_than_15_epochs_miss_the_brief(record):
    run = with_accuracies(record, [99.5] * 5)
    longer = replace(run, history=[*run.history, run.history[-1]])
    assert verdict(run).met
    assert verdict(longer).missing == ["epochs"]


def test_figures_are_those_of_the_final_epoch(record):
    run = with_accuracies(record, [99.9, 99.9, 99.9, 99.9, 99.0])
    assert final_test([run]).mean == 99.0
    assert final_train([run]).mean == run.history[-1].train_accuracy
    assert final_gap([run]).mean == pytest.approx(run.history[-1].train_accuracy - 99.0)
    assert wobble([run]).mean == pytest.approx(0.9)
    assert best_test([run]).mean == 99.9


def test_spread_carries_mean_sd_and_n():
    figure = spread([99.0, 99.1, 99.2])
    assert (figure.mean, figure.sd, figure.n) == (pytest.approx(99.1), pytest.approx(0.1), 3)
    assert str(figure) == "99.10 ± 0.10 % (n = 3)"
    assert str(spread([99.0])) == "99.00 % (n = 1)"
    with pytest.raises(ValueError, match="no runs are recorded"):
        spread([])


def test_difference_is_clear_outside_the_confidence_interval(record):
    def runs(values):
        return [with_accuracies(record, [value]) for value in values]

    low, high = runs([99.0, 99.1]), runs([99.25, 99.35])
    change = difference(high, low)
    assert change.mean == pytest.approx(0.25)
    assert change.error == pytest.approx(((0.1**2 / 2) / 2 * 2) ** 0.5)
    assert change.freedom == 2
    assert not change.clear  # 3.5 standard errors, but two seeds each: the interval has 4.30
    many = difference(runs([99.4, 99.5] * 4), runs([99.0, 99.1] * 4))
    assert many.freedom > 10
    assert many.clear
    assert difference(runs([99.0, 99.1] * 4), runs([99.4, 99.5] * 4)).clear
    assert not difference(runs([99.1]), runs([99.05])).clear  # one seed each: binomial error


def test_runs_meeting_brief_counts(record):
    good, bad = (with_accuracies(record, [a] * 5) for a in (99.5, 99.0))
    assert runs_meeting_brief([good, bad, good]) == 2


def test_claim_says_whether_it_holds(capsys):
    claim("one is less than two", True, "1", "2")
    claim("two is less than one", False, "2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "held      one is less than two"
    assert lines[1].strip() == "1; 2"
    assert lines[2].startswith("NOT HELD  two is less")


def test_evidence_is_every_recorded_seed_in_order():
    for model in range(1, 11):
        seeds = [run.seed for run in evidence(model)]
        assert seeds == sorted(set(seeds))
        assert seeds[0] == 0


def test_verdict_prints_every_record_as_text_and_json(capsys):
    assert verdict_command.main([]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert len(rows) == len(load_all())
    assert verdict_command.main(["--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(objects) == len(rows)
    for fields, record in zip(objects, load_all(), strict=True):
        assert set(fields) == {
            "model", "recipe", "seed", "parameters", "epochs", "test_accuracy",
            "train_accuracy", "met",
        }  # fmt: skip
        assert fields["test_accuracy"] == record.test_accuracy
        assert len(fields["test_accuracy"]) == len(fields["train_accuracy"]) == fields["epochs"]
        assert fields["met"] == verdict(record).met


def test_verdict_without_records_or_with_a_damaged_one(tmp_path, capsys):
    assert verdict_command.main(["--records", str(tmp_path)]) == 1
    assert "no runs are recorded" in capsys.readouterr().err
    (tmp_path / "1-constant-seed0-0123456789abcdef.json").write_text("{")
    assert verdict_command.main(["--records", str(tmp_path)]) == 1
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [
        ([99.0, 99.5, 99.3, 99.4, 99.41], 4),
        ([99.4], 1),
        ([99.5, 99.39], None),
        ([], None),
    ],
)
def test_epochs_to_hold_looks_from_the_end(accuracies, epoch):
    assert epochs_to_hold(accuracies) == epoch
