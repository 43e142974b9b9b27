import re
from dataclasses import replace

import pytest

from study import findings
from study.experiments import EXPERIMENTS, get_experiment
from study.findings import FINDINGS, Finding, judge
from study.runs import recorded
from study.statistics import best_test, final_test
from study.store import STUDY
from tests.test_statistics import ending

ABOVE = Finding("x", 4, "a is above b", ("a", "b"), final_test, ">")
BELOW = Finding("y", 4, "ends below 99.4", ("a",), final_test, "<", 99.4)
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
        # The interval lies above zero, but not without any one seed.
        (PAIRED, FRAGILE, [99.0, 99.0, 99.0], "undecided"),
        (BELOW, LOW, None, "held"),  # one experiment against a threshold
        (replace(BELOW, side=">"), LOW, None, "not held"),
    ],
)
def test_every_outcome_occurs(finding, a, b, outcome):
    groups = [ending(accuracies) for accuracies in (a, b) if accuracies]
    judged = judge(finding, groups)
    assert judged.outcome == outcome
    assert (judged.influential_seed is not None) == (a is FRAGILE)


def test_an_experiment_that_lacks_a_seed_decides_nothing(monkeypatch):
    own = [finding for finding in FINDINGS if finding.model == 1]
    found = findings.findings(own)
    assert min(judged.n for judged in found) == 5
    one = EXPERIMENTS["1"]
    monkeypatch.setitem(EXPERIMENTS, "1", replace(one, seeds=(*one.seeds, 99)))
    assert findings.findings(own) == []


def test_no_finding_turns_over_without_one_seed():
    """What is held stays held or becomes undecided by its definition; so ask of the others."""
    refuted = [judged.finding for judged in findings.findings() if judged.outcome == "not held"]
    assert refuted
    for finding in refuted:
        groups = list(recorded(finding.names, [STUDY]).values())
        for seed in {record.run.seed for group in groups for record in group}:
            rest = [[record for record in group if record.run.seed != seed] for group in groups]
            assert judge(finding, rest).outcome != "held"


def test_two_to_six_findings_a_model_on_experiments_that_exist():
    assert len({finding.id for finding in FINDINGS}) == len(FINDINGS) <= 42
    for model in range(1, 11):
        assert 2 <= sum(finding.model == model for finding in FINDINGS) <= 6
    assert all(get_experiment(name) for finding in FINDINGS for name in finding.names)


def test_rotation_explains_little_of_the_published_runs_as_notebook_3_says():
    for model, (by_code, by_text) in findings.replicated().items():
        best = best_test(by_code)
        apart = abs(best.mean - best_test(by_text).mean)
        assert model > 7 or apart < max(best.values) - min(best.values)


def test_every_finding_is_a_sentence_of_one_notebook():
    printed = [findings.sentences(model) for model in (*range(1, 11), None)]
    lines = [line for text in printed for line in text.splitlines()]
    assert len(lines) == len(set(lines)) == len(findings.findings())
    for line in lines:
        assert re.fullmatch(r"- \*.+:\* \*\*(held|not held|undecided)\*\*\. .+, n = \d+.*", line)
