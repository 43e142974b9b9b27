"""One real Chromium for all tests here, and a copy of the project without what git ignores."""

import shutil
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM
from tools.mutants import SKIPPED
from utils.data import ROOT


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "project", ignore=SKIPPED)
