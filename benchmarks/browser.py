"""How fast the page to draw on answers: `python -m benchmarks.browser [FOLDER]` after `make site`.

The site is served from this machine, so that no connection is measured. Results go to
benchmarks/browser.json.
"""

import functools
import http.server
import json
import shutil
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dask.system import CPU_COUNT

from benchmarks.epochs import wait_until_quiet
from study.processor import processor_kind

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
RESULTS = Path(__file__).parent / "browser.json"
LOADS, STROKES = 5, 50
# Each stroke is prepared and answered by every network, and drawn; then the browser gets its turn.
STROKE = """async (count) => {
  const taken = [];
  for (let turn = 0; turn < count; turn++) {
    const started = performance.now();
    await page.readBoard();
    taken.push(performance.now() - started);
    await new Promise((resume) => setTimeout(resume));
  }
  return taken;
}"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder while the block runs; yields its address."""
    serve = functools.partial(_Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def measure(folder: Path) -> dict:
    """Seconds to the first answer of a page loaded anew, and milliseconds a stroke (medians)."""
    from playwright.sync_api import sync_playwright  # `make site` installs it

    first, strokes = [], []
    with sync_playwright() as started, served(folder) as address:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(LOADS):
            page = browser.new_context().new_page()  # with an empty cache
            page.goto(address + "draw.html")
            page.wait_for_function("window.ready", timeout=60_000)
            first.append(page.evaluate("window.firstAnswer") / 1000)
            strokes += page.evaluate(STROKE, STROKES)
            networks = page.evaluate("document.querySelectorAll('#answers tbody tr').length")
            page.context.close()
        browser.close()
    found = {"first_answer_s": statistics.median(first), "stroke_ms": statistics.median(strokes)}
    return found | {"networks": networks, "cores": CPU_COUNT, "kind": processor_kind()}


def text() -> str:
    """Markdown: what was measured."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    where = f"In Chromium on {found['cores']} cores with {found['kind']}"
    first = f"the first answer comes {found['first_answer_s']:.2f} s after the page is asked for"
    by = f"all {found['networks']} networks, one of them with all its maps"
    taken = f"{found['stroke_ms']:.0f} ms"
    return f"{where} {first}, and a stroke is answered by {by}, in {taken} (medians)."


def main() -> None:
    """Measure the site in the folder that is given, and store."""
    folder = Path(sys.argv[1] if len(sys.argv) == 2 else "build/site")
    if not CHROMIUM or not (folder / "draw.html").exists():
        needs = "needs Chromium (on Debian: apt-get install chromium) and a site in"
        sys.exit(f"{needs} {folder}, which `make site` builds")
    wait_until_quiet()
    RESULTS.write_text(json.dumps(measure(folder), indent=1) + "\n", encoding="utf-8")
    print(text())


if __name__ == "__main__":
    main()
