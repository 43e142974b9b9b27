"""Run All in a real JupyterLab, as a learner would, on a copy of the project."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.test_notebooks import NOTEBOOKS, ROOT

NOTEBOOK = "window.jupyterapp.shell.currentWidget"


@pytest.fixture(scope="module")
def lab(project):
    command = [sys.executable, "-m", "nbconvert", "--log-level=WARN", "--clear-output", "--inplace"]
    notebooks = [str(project / path.relative_to(ROOT)) for path in NOTEBOOKS]
    subprocess.run([*command, *notebooks], check=True)  # what is there then, this run has made
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
               "--IdentityProvider.token=", "--expose-app-in-browser"]  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("MNIST_")}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=project, env=own, **silent)
    base, deadline = f"http://127.0.0.1:{port}/lab", time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(base, timeout=10)
            break
        except OSError:
            time.sleep(0.5)
    yield base
    process.terminate()
    process.wait(120)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_ends_without_red(lab, browser, path):
    page = browser.new_page(viewport={"width": 1200, "height": 2000})
    page.set_default_timeout(120_000)
    page.goto(f"{lab}/tree/{path.relative_to(ROOT)}?reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    if page.locator(".jp-Dialog .jp-mod-accept").count():
        page.click(".jp-Dialog .jp-mod-accept")
    page.wait_for_function(f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'")
    # The command behind the menu's entry ends when the last cell has; its look on the page lags.
    assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate(f"{NOTEBOOK}.model.toJSON().cells")
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    faults = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    # In a fresh copy the first training compiles, and says so.
    assert [o for o in faults if "compiling the fast layers, once" not in str(o)] == []
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    shows = sum(len(re.findall(r"\bshow\w*\(|try_it\(", "".join(c["source"]))) for c in cells)
    assert pictures == shows
    page.close()
