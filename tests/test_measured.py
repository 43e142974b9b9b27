import shutil

import pytest

from study import robustness as measured
from study.robustness import BINS, CONDITIONS, measure
from study.runs import recorded
from study.show import pictures
from study.store import STUDY, load


def test_what_is_stored_is_what_is_measured(mnist):
    run = recorded(["9-final"], [STUDY])["9-final"][0]
    again, stored = measure(run, mnist), measured.load()[run.key]
    assert len(set(again.wrong) ^ set(stored.wrong)) <= 3  # other machines round otherwise
    assert len(again.wrong) == pytest.approx(
        10_000 - sum(run.confusion[digit][digit] for digit in range(10)), abs=3
    )
    assert sum(n for n, *_ in stored.bins) == 10_000
    assert sum(right for *_, right in stored.bins) == 10_000 - len(stored.wrong)
    for name, values in CONDITIONS.items():
        assert again.accuracy[name] == pytest.approx(stored.accuracy[name], abs=0.15)
        assert len(values) == len(stored.accuracy[name])
    assert again.out_of_distribution == pytest.approx(stored.out_of_distribution, abs=0.5)


def test_every_kept_network_of_the_study_is_measured_and_nothing_else():
    found, kept = measured.load(), measured.kept()
    assert found.keys() == kept.keys()
    for key, run in kept.items():
        hits = sum(run.confusion[digit][digit] for digit in range(10))
        assert abs(len(found[key].wrong) - (10_000 - hits)) <= 3, run.title


def test_what_is_no_longer_kept_leaves_the_file(tmp_path, monkeypatch):
    stored = measured.load()
    extra = next(iter(stored.values()))
    monkeypatch.setattr(measured, "FILE", tmp_path / "measured.json")
    monkeypatch.setenv("MNIST_ROOT", "elsewhere")  # the study is about its own data all the same
    measured.save(stored | {"gone": extra})
    assert measured.main() == 0
    assert measured.load() == stored


def test_a_run_of_ones_own_is_measured_and_one_without_weights_is_one_line(tmp_path, monkeypatch):
    run = recorded(["1"], [STUDY])["1"][0]
    monkeypatch.setattr(measured, "load", dict)
    with pytest.raises(ValueError, match="no network of 1 is measured"):
        measured.of([run])
    for path in (run.path, run.weights_path):
        shutil.copy(path, tmp_path)
    (found,) = measured.of([load(tmp_path / run.path.name)])
    missed = 10_000 - sum(run.confusion[digit][digit] for digit in range(10))
    assert len(found.wrong) == pytest.approx(missed, abs=3)  # other machines round otherwise


def test_independent_chance_predicts_its_own_spread(monkeypatch):
    """Three networks that miss two to four of 10,000 images, by hand."""
    runs = recorded(["4"], [STUDY])["4"][:3]
    wrong = [(0, 1), (1, 2, 3), (0, 1, 2, 3)]
    bins = ((10_000, 9_000.0, 9_990), *[(0, 0.0, 0)] * (BINS - 1))
    found = {
        run.key: measured.Measured(each, bins, {}, (0, 0))
        for run, each in zip(runs, wrong, strict=True)
    }
    monkeypatch.setattr(measured, "load", lambda: found)
    # p = 2/3, 1, 2/3, 2/3: variance 3 * 2/9 * 3/2 = 1, one image of 10,000; the counts 2, 3, 4.
    assert pictures.seed_spread(runs) == (
        "4: the accuracy of 3 seeds has a standard deviation of 0.010 points; independent chance "
        "at every image would give 0.010"
    )
    assert "takes 3 or more" in pictures.seed_spread(runs[:2])
