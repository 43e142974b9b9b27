import shutil

import pytest
import torch

from study import robustness
from study.robustness import BINS, CONDITIONS, Measured, measure, rotated, shifted
from study.store import STUDY, load, load_all
from tests.conftest import of_study


def missed(run) -> int:
    return 10_000 - sum(run.confusion[digit][digit] for digit in range(10))


def test_what_is_stored_is_what_is_measured(mnist, final):
    again, stored = measure(final[0], mnist), robustness.load()[final[0].key]
    assert len(set(again.wrong) ^ set(stored.wrong)) <= 3  # other machines round otherwise
    assert len(again.wrong) == pytest.approx(missed(final[0]), abs=3)
    images, _, correct = map(sum, zip(*stored.bins, strict=True))
    assert (images, correct) == (10_000, 10_000 - len(stored.wrong))
    for name in CONDITIONS:
        assert again.accuracy[name] == pytest.approx(stored.accuracy[name], abs=0.15)
    assert again.out_of_distribution == pytest.approx(stored.out_of_distribution, abs=0.5)


def test_every_kept_network_of_the_study_is_measured_and_nothing_else():
    found = robustness.load()
    kept = {key: run for key, run in load_all([STUDY]).items() if run.weights_path.exists()}
    kept = {key: run for key, run in kept.items() if run.run.measure_test}  # shut for trials
    assert found.keys() == kept.keys()
    for key, run in kept.items():
        assert abs(len(found[key].wrong) - missed(run)) <= 3, run.title


def test_what_is_no_longer_kept_leaves_the_file(tmp_path, monkeypatch):
    stored = robustness.load()
    monkeypatch.setattr(robustness, "FILE", tmp_path / "measured.json")
    monkeypatch.setenv("MNIST_ROOT", "elsewhere")  # the study is about its own data all the same
    robustness.save(stored | {"gone": next(iter(stored.values()))})
    assert robustness.main() == 0
    assert robustness.load() == stored


def test_a_users_run_is_measured_and_one_without_weights_is_one_line(tmp_path, monkeypatch):
    run, without, *_ = of_study(1)
    with pytest.raises(ValueError, match="no weights of 1 are kept"):
        robustness.recorded_answers([without])
    for path in (run.path, run.weights_path):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(robustness, "FILE", tmp_path / "none.json")
    (found,) = robustness.recorded_answers([load(tmp_path / run.path.name)])
    assert len(found.wrong) == pytest.approx(missed(run), abs=3)


def test_calibration_sums_over_networks(final):
    error, points = robustness.calibration(final)
    kept = robustness.recorded_answers(final)
    assert sum(n for *_, n in points) == 10_000 * len(kept) == 200_000
    images, total, correct = map(sum, zip(*(each.bins[-1] for each in kept), strict=True))
    assert points[-1] == pytest.approx((total / images, correct / images, images))
    apart = [n * abs(sure - share) for sure, share, n in points]
    assert error == pytest.approx(100 * sum(apart) / 200_000)


def test_out_of_distribution_accuracy_is_prepared_first(final):
    prepared, enlarged = robustness.out_of_distribution(final[:1])
    (kept,) = robustness.recorded_answers(final[:1])
    assert (*prepared.values, *enlarged.values) == kept.out_of_distribution
    assert prepared.mean > enlarged.mean


def test_independent_chance_predicts_its_own_spread(monkeypatch):
    """Three networks that miss two to four of 10,000 images, by hand."""
    bins = ((10_000, 9_000.0, 9_990), *[(0, 0.0, 0)] * (BINS - 1))
    kept = [Measured(wrong, bins, {}, (0, 0)) for wrong in ((0, 1), (1, 2, 3), (0, 1, 2, 3))]
    monkeypatch.setattr(robustness, "recorded_answers", lambda runs: kept)
    # p = 2/3, 1, 2/3, 2/3: variance 3 * 2/9 * 3/2 = 1, one image of 10,000; the counts 2, 3, 4.
    accuracy, chance = robustness.seed_spread([])
    assert accuracy.values == pytest.approx((99.98, 99.97, 99.96))
    assert (accuracy.sd, chance) == pytest.approx((0.01, 0.01))
    del kept[1:]
    with pytest.raises(ValueError, match="a spread needs two networks or more"):
        robustness.seed_spread([])


def test_rotating_there_and_back_and_shifting_by_whole_pixels(mnist):
    images = mnist.test.images[:5]
    assert (rotated(images, 0.0).int() - images.int()).abs().max() <= 1
    there, back = rotated(images, 30.0), rotated(rotated(images, 30.0), -30.0)
    apart = [(changed.float() - images.float()).abs().mean() for changed in (back, there)]
    assert apart[0] < 12 < 20 < apart[1]
    assert torch.equal(shifted(images, 0), images)
    assert torch.equal(shifted(images, 3)[:, 3:, 3:], images[:, :25, :25])
    assert not shifted(images, 3)[:, :3].any()
