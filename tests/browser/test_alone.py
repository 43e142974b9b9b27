"""The longer notebooks opened alone, as in Colab; tests/test_notebooks.py opens the first."""

import pytest

from tests.test_notebooks import NOTEBOOKS, repository, run_alone  # noqa: F401


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS[1:]])
def test_opened_alone_as_in_colab(name, repository, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.delenv("MNIST_RECORDS")
    monkeypatch.delenv("MNIST_RUNS")
    run_alone(name, repository, tmp_path)
