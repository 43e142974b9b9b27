import shutil

import nbformat
import pytest

from tests.conftest import python
from tools.address import stamp
from utils.data import ROOT

ADDRESS = "https://github.com/someone/mnist-under-8k"


@pytest.fixture
def project(tmp_path):
    for folder in ("notebooks", "appendix"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def contents(project):
    return {path: path.read_text() for path in project.rglob("*") if path.is_file()}


def test_there_is_no_badge_before_the_address_is_known():
    if (ROOT / "tools" / "address.txt").read_text().strip():
        pytest.skip("this project is stamped")
    pages = (ROOT / "README.md", *ROOT.glob("[na][op]*/*.ipynb"))
    assert not any("colab-badge" in page.read_text() for page in pages)


@pytest.mark.parametrize("given", [ADDRESS, ADDRESS + ".git/"])
def test_stamping_writes_address_and_badges_and_nothing_else(project, given):
    stamp("https://github.com/other/name", project)
    stamp(given, project)
    assert not any("other/name" in text for text in contents(project).values())
    assert (project / "tools" / "address.txt").read_text() == ADDRESS + "\n"
    assert (project / "README.md").read_text().count("colab-badge.svg") == 4
    for path in project.glob("[na][op]*/*.ipynb"):
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        sources = "\n".join(cell.source for cell in book.cells)
        assert sources.count(f'ADDRESS = "{ADDRESS}"') == 1
        name = path.relative_to(project).as_posix()
        target = f"github/someone/mnist-under-8k/blob/main/{name}"
        assert sources.count(target) == 1
        assert sources.count("colab-badge.svg") == 1
        cells = nbformat.read(ROOT / name, as_version=4).cells
        for cell, before in zip(book.cells, cells, strict=True):
            assert cell.get("outputs") == before.get("outputs")


def test_another_host_has_no_badge(project):
    stamp("file:///srv/project.git", project)
    texts = contents(project)
    assert not any("colab-badge" in text for text in texts.values())
    assert sum(r"ADDRESS = \"file:///srv/project.git\"" in text for text in texts.values()) == 4


@pytest.mark.parametrize("address", ["", "github.com/a/b", "https://github.com/a", 'https://a/b/"'])
def test_a_bad_address_is_one_line_and_changes_nothing(project, address):
    before = contents(project)
    with pytest.raises(ValueError, match="the address must look like"):
        stamp(address, project)
    assert contents(project) == before
    ended = python("-m", "tools.address", address)
    line = f"the address must look like https://github.com/OWNER/NAME, not {address}\n"
    assert (ended.returncode, ended.stderr) == (1, line)
