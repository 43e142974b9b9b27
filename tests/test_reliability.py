from tools.reliability import CHECKS, report


def test_a_final_far_from_its_recorded_runs_is_counted_and_named():
    row = report({"unseen": {"seed": 42, "apart": {"9-final": -3.5, "10-final": 1.25}}})
    assert "from a seed (42) not among its runs | 2 |" in row
    assert "1 end within three standard deviations of its mean, the furthest at -3.5" in row


def test_what_has_not_been_tried_is_said_in_words():
    assert report({}).endswith(
        "Not tried yet: flips, values, kills, planted bugs, the finals from a new seed, tests."
    )
    assert "Not tried" not in report({name: {} for name in CHECKS})
