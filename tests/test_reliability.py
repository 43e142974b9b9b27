import re

import pytest

from tools import pages
from tools.mutants import MUTANTS
from tools.reliability import CHECKS
from utils.data import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug)
def test_a_planted_bug_has_its_place_and_its_test(mutant):
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1
    path, _, name = mutant.test.partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text()


def test_every_count_is_in_the_table():
    found = pages.reliability_counts()
    assert CHECKS.keys() < found.keys()
    found["unseen"] = {"seed": 42, "apart": {"9-final": -3.5, "10-final": 1.25}}
    found["flips"]["records"] = {"one line": 7, "unnoticed": 3}
    table = pages.reliability_table(found)
    assert "| 9-final, 10-final, each from seed 42, not among its runs | 2 | 1 end within" in table
    assert "deviations of its mean, the furthest at -3.5 |" in table
    assert "| 10 | 7 answered by one line, 0 without effect, 3 unnoticed, 0 tracebacks |" in table
    for name in re.findall(r"`(tests/\w+\.py)`", table):
        assert (ROOT / name).exists(), name
