import json
from dataclasses import replace

import pytest

from study import findings
from study.experiments import get_experiment
from study.findings import FINDINGS, Finding, judge
from study.runs import recorded
from study.statistics import final_test
from study.store import STUDY


@pytest.fixture(scope="module")
def record():
    return recorded(["4"], [STUDY])["4"][0]


def group(record, accuracies):
    """Made-up runs that end at these test accuracies, one a seed."""
    made = []
    for seed, accuracy in enumerate(accuracies):
        run = object.__new__(type(record))
        history = (*record.history[:-1], replace(record.history[-1], test_accuracy=accuracy))
        run.__dict__.update(record.__dict__, run=replace(record.run, seed=seed), history=history)
        made.append(run)
    return made


ABOVE = Finding("x", 4, "a is above b", ("a", "b"), final_test, ">")
PAIRED = replace(ABOVE, paired=True)
FRAGILE = [99.055, 99.1, 99.12]
LOW, HIGH = [99.0, 99.02, 98.98, 99.01], [99.2, 99.21, 99.19, 99.2]


@pytest.mark.parametrize(
    ("finding", "a", "b", "outcome"),
    [
        (ABOVE, HIGH, LOW, "held"),
        (ABOVE, LOW, HIGH, "not held"),
        (ABOVE, [99.0, 99.4, 98.6, 99.1], LOW, "undecided"),
        (PAIRED, [99.1, 98.8, 99.3], [99.0, 98.71, 99.2], "held"),
        # The interval lies above zero (asserted below), but not without any one seed.
        (PAIRED, FRAGILE, [99.0, 99.0, 99.0], "undecided"),
    ],
)
def test_every_outcome_occurs(record, finding, a, b, outcome):
    assert judge(finding, [group(record, a), group(record, b)]).outcome == outcome


def test_the_fragile_case_is_one_for_leaving_a_seed_out(record):
    groups = [group(record, FRAGILE), group(record, [99.0, 99.0, 99.0])]
    assert PAIRED.beyond(PAIRED.effect(groups)) == 1


def test_one_experiment_against_a_threshold(record):
    below = Finding("y", 4, "ends below 99.4", ("a",), final_test, "<", 99.4)
    assert judge(below, [group(record, LOW)]).outcome == "held"
    assert judge(replace(below, side=">"), [group(record, LOW)]).outcome == "not held"


def test_too_few_seeds_is_one_line(record):
    with pytest.raises(ValueError, match=r"finding x has 2 seeds; it takes 3 or more"):
        judge(ABOVE, [group(record, HIGH[:2]), group(record, LOW)])


def test_no_finding_turns_over_without_one_seed():
    """What is held stays held or becomes undecided by its definition; so ask of the others."""
    refuted = {j.finding.id for j in findings.findings() if j.outcome == "not held"}
    assert refuted
    seeds = {r.run.seed for records in recorded(folders=[STUDY]).values() for r in records}
    for seed in seeds:
        held = {j.finding.id for j in findings.findings(without=seed) if j.outcome == "held"}
        assert not held & refuted


def test_two_to_six_findings_a_model_on_experiments_that_exist():
    assert len({finding.id for finding in FINDINGS}) == len(FINDINGS) <= 40
    for model in range(1, 11):
        own = [finding for finding in FINDINGS if finding.model == model and not finding.of_finals]
        assert 2 <= len(own) <= 6
    for finding in FINDINGS:
        for name in finding.names:
            get_experiment(name)


def test_the_command_prints_an_object_a_line(capsys):
    assert findings.main(["--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = {"id", "model", "statement", "outcome", "effect", "low", "high", "n"}
    assert all(set(found) == keys for found in objects)
    assert all(found["low"] <= found["effect"] <= found["high"] for found in objects)
    assert findings.main(["--json", "--without", "0"]) == 0
    fewer = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    both = {found["id"]: found["n"] for found in objects}
    assert all(found["n"] == both[found["id"]] - 1 for found in fewer)
