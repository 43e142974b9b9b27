"""Each notebook opened alone, as in Colab: it clones the project once and runs."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_notebooks import NOTEBOOKS, ROOT
from tools.address import stamp


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def stamped(project, tmp_path_factory) -> Path:
    """The project, stamped with the address of a local bare repository that holds it."""
    bare = tmp_path_factory.mktemp("bare")
    stamp(bare.as_uri(), project)
    git("init", "-q", cwd=project)
    git("add", "-A", cwd=project)
    for message in ("all", "more"):  # two commits, so that a shallow clone can be told
        git("commit", "-q", "--allow-empty", "-m", message, cwd=project)
    git("clone", "-q", "--bare", project.as_uri(), str(bare), cwd=project)
    return project


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opened_alone_as_in_colab(path, stamped, tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_RECORDS")
    monkeypatch.delenv("MNIST_RUNS")
    copy = Path(shutil.copy(stamped / path.relative_to(ROOT), tmp_path))
    book = nbformat.read(copy, as_version=4)
    resources = {"metadata": {"path": tmp_path}}
    NotebookClient(book, timeout=600, startup_timeout=300, resources=resources).execute()
    clone = tmp_path / "mnist-under-8k"
    assert sorted(tmp_path.iterdir()) == sorted([copy, clone])
    assert git("rev-list", "--count", "HEAD", cwd=clone) == "1\n"
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    printed = [output.get("text", "") for output in outputs]
    assert sum("replayed" in text for text in printed) >= 3
    assert not any(text.startswith("trained in") for text in printed)
