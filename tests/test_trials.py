import operator
from dataclasses import replace

import pytest

from models import SeparableConfig
from study import trials
from study.experiments import ALL_IMAGES, EXPERIMENTS, FINALS, TRIALS
from study.findings import Finding, judge
from study.runs import recorded
from study.statistics import final_test, final_train, runs_meeting_brief
from study.store import STUDY
from study.thresholds import GAIN, LOWEST_OF_A_FINAL, MAX_EPOCHS, RUNS_GOAL
from study.trials import outcome, outcomes, score
from tests.conftest import of_study
from tools.pages import goals_table, performance_log


def test_a_score_is_the_held_out_accuracy_of_the_last_five_epochs():
    record = of_study("9-search-steps")[0]
    assert record.test_accuracy == [None] * 15
    last = [row.validation_accuracy for row in record.history[-5:]]
    assert score(record) == pytest.approx(sum(last) / 5)


def test_an_outcome_is_paired_by_seed_and_has_the_lowest_of_the_last_five_epochs():
    found = outcome("10-trial-wider")
    own, base = of_study("10-trial-wider"), of_study("10-trial-base")
    last = [[row.validation_accuracy for row in r.history[-5:]] for r in own]
    assert found.lowest == pytest.approx(sum(map(min, last)) / len(last))
    assert [r.run.seed for r in own] == [r.run.seed for r in base] == [0, 1, 2]
    assert found.gain.values == tuple(map(operator.sub, map(score, own), map(score, base)))


def test_what_has_not_run_is_not_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "STUDY", tmp_path)
    assert outcome("9-search-steps") is None
    assert outcomes() == []


def test_every_recorded_trial_has_its_line():
    log = performance_log()
    recorded = {path.parent.name for path in STUDY.glob("*/*/seed-*.json")}
    assert TRIALS.keys() <= recorded <= EXPERIMENTS.keys()
    for name in TRIALS:
        lines = [line for line in log.splitlines() if line.split(" | ")[2:3] == [name]]
        assert len(lines) == 1, name


def test_the_goals_are_held_against_what_was_reached():
    finals = recorded(["9-final", "10-final"], [STUDY])
    rows = [line.strip("| ").split(" | ") for line in goals_table(finals).splitlines()[2:]]
    small = min(outcomes(), key=lambda found: (found.parameters >= 3_000, -found.lowest))
    assert [row[0] for row in rows][:3] == ["9-final", "10-final", "smallest"]
    for name, (_, _, reached, _, met) in zip(finals, rows, strict=False):
        count = runs_meeting_brief(finals[name])
        assert reached.startswith(f"{count} of 20 (")
        assert met == ("yes" if count >= 19 else "no")
    assert rows[2][2].startswith(f"{small.lowest:.3f} % at {small.parameters:,}, ")
    forged = {"9-final": of_study(1)}
    assert " | no |" in goals_table(forged).splitlines()[2]


def test_the_finals_that_overfit_are_those_that_the_appendix_names():
    for name, runs in recorded(FINALS, [STUDY]).items():
        named = isinstance(runs[0].run.config, SeparableConfig) and not name.startswith("wild-")
        assert (final_train(runs).mean > final_test(runs).mean) == named, name


def test_muon_does_for_networks_9_and_10_what_the_pages_say():
    muon, adamw = ([of_study(f"{model}-final{end}") for model in (9, 10)] for end in ("-muon", ""))
    assert min(map(runs_meeting_brief, muon)) >= RUNS_GOAL > max(map(runs_meeting_brief, adamw))
    claim = Finding("", None, "", ("with Muon", "with AdamW"), final_test, ">")
    nine, ten = (judge(claim, list(pair)) for pair in zip(muon, adamw, strict=True))
    assert (nine.outcome, ten.outcome) == ("undecided", "undecided")
    assert nine.influential_seed is not None
    assert nine.effect.low > 0 > ten.effect.low


def test_each_final_is_what_the_plans_rule_chooses():
    every = [(found, EXPERIMENTS[found.name].recipe) for found in outcomes()]

    def highest(*prefixes: str, optimizer: str = "muon") -> str:
        """Shorter runs are no rivals: they came after those of *best-final*."""
        wanted = MAX_EPOCHS, optimizer
        rivals = [found for found, r in every if (r.epochs, r.optimizer) == wanted]
        return max((f.score, f.name) for f in rivals if f.name.startswith(prefixes))[1]

    def least(prefix: str, measure) -> str:
        enough = [(f, r) for f, r in every if f.lowest >= LOWEST_OF_A_FINAL]
        return min((measure(f, r), f.name) for f, r in enough if f.name.startswith(prefix))[1]

    chosen = {
        "smallest-final": least("small-", lambda found, _: found.parameters),
        "short-final": least("best-trial-deeper-epochs-", lambda _, recipe: recipe.epochs),
        "best-final": highest("best-", optimizer="adamw"),
        "best-final-muon": highest("best-", "wild-trial-muon"),
        "wild-final-milder": highest("wild-trial-muon-weaker", "wild-milder-"),
        "tiny-final": highest("tiny-trial-muon"),
        "10-final-muon": highest("10-trial-muon"),
    }
    for name, base in chosen.items():
        final, trial = EXPERIMENTS[name], EXPERIMENTS[base]
        assert (final.base, final.config) == (base, trial.config)
        assert final.recipe == replace(trial.recipe, **ALL_IMAGES)
    ten, nine = (EXPERIMENTS[f"{model}-final-muon"] for model in (10, 9))
    assert (nine.recipe, nine.config) == (ten.recipe, EXPERIMENTS["9"].config)
    missed = outcomes("short-trial-muon")  # so there is no shorter final
    assert [found.lowest < LOWEST_OF_A_FINAL for found in missed] == [True, True]


def test_what_was_taken_gained_enough_by_the_rule():
    taken = [name for name, trial in TRIALS.items() if trial.taken and name.startswith("10-")]
    assert len(taken) >= 4
    for name in taken:
        assert outcome(name).gain.mean >= GAIN, name


def test_a_base_comes_before_its_trials_and_gains_nothing():
    base, first, *_ = outcomes("10-trial-")
    assert base.name == EXPERIMENTS[first.name].base == "10-trial-base"
    assert str(base) == ""
    assert str(first).startswith(("+", "-"))
    assert performance_log().splitlines()[2].startswith("| the base | 6,022 |")
