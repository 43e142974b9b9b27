"""Run All in a real JupyterLab, as a learner would, on a copy of the project."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from tests.browser.conftest import CHROMIUM
from utils.data import ROOT

pytest.importorskip("jupyterlab")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    work = tmp_path_factory.mktemp("lab") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, work, ignore=ignored)
    for path in (work / "notebooks").glob("*.ipynb"):  # what is there then, this run has made
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(book, path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root"]
    options = ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("MNIST_")}
    process = subprocess.Popen(
        [*command, *options], cwd=work, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    base = f"http://127.0.0.1:{port}/lab"
    for _ in range(120):
        try:
            urllib.request.urlopen(base, timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    yield base
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_ends_without_red(lab, browser, name):
    page = browser.new_page(viewport={"width": 1200, "height": 2000})
    page.goto(f"{lab}/tree/notebooks/{name}?reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=60_000)
    if page.locator(".jp-Dialog .jp-mod-accept").count():
        page.click(".jp-Dialog .jp-mod-accept")
    page.wait_for_function(
        "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'",
        timeout=60_000,
    )
    page.click("text=Kernel >> nth=0")
    page.click("text=Restart Kernel and Run All Cells")
    page.click(".jp-Dialog .jp-mod-accept")
    path = f"{lab.removesuffix('/lab')}/api/contents/notebooks/{name}"
    last = f"() => fetch('{path}').then(r => r.json()).then(r => r.content.cells)"
    for _ in range(150):  # idle it is also while the kernel has not yet begun
        time.sleep(2)
        status = page.evaluate(
            "document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status"
        )
        if status != "idle" or page.locator(".jp-InputPrompt", has_text="[*]").count():
            continue
        page.keyboard.press("Control+s")
        time.sleep(2)
        cells = [cell for cell in page.evaluate(last) if cell["cell_type"] == "code"]
        kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
        if cells[-1]["execution_count"] or "error" in kinds:
            break
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    shows = sum(len(re.findall(r"\bshow\w*\(|try_it\(", "".join(c["source"]))) for c in cells)
    assert pictures == shows
    page.close()
