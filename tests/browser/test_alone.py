"""Each notebook opened alone, as in Colab: it clones the project once and runs."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_notebooks import NOTEBOOKS
from tools.address import stamp
from utils.data import ROOT


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The project as it is now in a local bare repository, stamped with its own address."""
    work, bare = tmp_path_factory.mktemp("work") / "project", tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "runs", "__pycache__", ".*_cache", "*-ubyte", "*.partial.json"
    )
    shutil.copytree(ROOT, work, ignore=ignored)
    stamp(bare.as_uri(), work)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    commit = [*identity, "commit", "-q", "--allow-empty", "-m"]
    # Two commits, so that a shallow clone is seen to be one.
    for arguments in (["init", "-q"], ["add", "-A"], [*commit, "all"], [*commit, "more"]):
        subprocess.run(["git", *arguments], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work.as_uri(), str(bare)], check=True)
    return work


def run_alone(name: str, repository: Path, folder: Path) -> None:
    """Execute a notebook that lies alone in a folder, as Colab opens it, and look at what came."""
    alone = folder / "content"
    alone.mkdir()
    shutil.copy(repository / "notebooks" / name, alone)
    book = nbformat.read(alone / name, as_version=4)
    client = NotebookClient(
        book, timeout=600, startup_timeout=300, resources={"metadata": {"path": alone}}
    )
    client.execute()
    clone = alone / "mnist-under-8k"
    assert sorted(path.name for path in alone.iterdir()) == sorted([name, clone.name])
    depth = ["git", "rev-list", "--count", "HEAD"]
    assert subprocess.run(depth, cwd=clone, capture_output=True, text=True).stdout.strip() == "1"
    printed = [
        output.get("text", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert sum("replayed" in text for text in printed) >= 3
    assert not any(text.startswith("training ") for text in printed)


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_opened_alone_as_in_colab(name, repository, tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_RECORDS")
    monkeypatch.delenv("MNIST_RUNS")
    run_alone(name, repository, tmp_path)
