import shutil

import nbformat
import pytest

from tools.address import main, stamp
from utils.data import ROOT

ADDRESS = "https://github.com/someone/mnist-under-8k"


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def contents(project):
    return {path: path.read_text() for path in project.rglob("*") if path.is_file()}


def test_there_is_no_badge_before_the_address_is_known():
    if (ROOT / "tools" / "address.txt").read_text().strip():
        pytest.skip("this project is stamped")
    assert "colab-badge" not in (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert "colab-badge" not in path.read_text()


def test_stamping_writes_address_and_badges(project):
    stamp(ADDRESS + ".git/", project)
    assert (project / "tools" / "address.txt").read_text() == ADDRESS + "\n"
    assert (project / "README.md").read_text().count("colab-badge.svg") == 3
    for path in (project / "notebooks").glob("*.ipynb"):
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        sources = "\n".join(cell.source for cell in book.cells)
        assert sources.count(f'ADDRESS = "{ADDRESS}"') == 1
        target = f"github/someone/mnist-under-8k/blob/main/notebooks/{path.name}"
        assert sources.count(target) == 1
        # Outputs and counts are untouched.
        original = nbformat.read(ROOT / "notebooks" / path.name, as_version=4)
        assert [cell.get("outputs") for cell in book.cells] == [
            cell.get("outputs") for cell in original.cells
        ]


def test_stamping_again_changes_the_address_and_adds_nothing(project):
    stamp("https://github.com/other/name", project)
    stamp(ADDRESS, project)
    once = contents(project)
    stamp(ADDRESS, project)
    assert contents(project) == once
    assert not any("other/name" in text for text in once.values())


@pytest.mark.parametrize("address", ["", "github.com/a/b", "https://github.com/a", 'https://a/b/"'])
def test_a_bad_address_changes_nothing(project, address, capsys):
    before = contents(project)
    with pytest.raises(ValueError, match="the address must look like"):
        stamp(address, project)
    assert contents(project) == before
    assert main([address]) == 2
    assert "must look like https://github.com/OWNER/NAME" in capsys.readouterr().err
