"""The built site in a real Chromium: `make test-browser` builds it first."""

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy
import pytest
import torch
from PIL import Image

from benchmarks.browser import served
from study.digit import as_mnist
from study.runs import recorded
from study.store import STUDY
from tests.browser.conftest import CHROMIUM
from tests.test_digit import photo, several
from tools.site import NPM, SITE, Shown
from utils.data import ROOT

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and (SITE / "index.html").exists()),
    reason="needs Chromium (on Debian: apt-get install chromium) and `make site`",
)
PAGES = sorted(
    str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts
)
AXE = NPM / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = [("light", 1200), ("dark", 1200), ("light", 380), ("dark", 380)]


@pytest.fixture(scope="module")
def base():
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def draw(browser, base):
    page = browser.new_page()
    page.goto(base + "draw.html")
    page.wait_for_function("window.ready", timeout=60_000)
    return page


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_every_page_loads_clean(browser, base, scheme, width):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    faults = []
    for name in PAGES:
        page.goto(base + name)
        page.wait_for_load_state("networkidle")
        if name == "draw.html":
            page.wait_for_function("window.ready", timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        faults += [(name, v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found]
    context.close()
    assert said == []
    elsewhere = {url for url in asked if not url.startswith((base, "data:", "blob:"))}
    assert elsewhere == set()
    assert faults == []


def test_no_internal_link_is_broken():
    broken = []
    for name in PAGES:
        text = (SITE / name).read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#]+)[^"]*"', text):
            if not re.match(r"[a-z]+:", link):
                target = (SITE / name).parent / unquote(urldefrag(link)[0].split("?")[0])
                if not target.exists():
                    broken.append((name, link))
    assert broken == []


def pixels(page, image: torch.Tensor) -> list[dict]:
    """Let the page read an image as it is; the answers of all networks."""
    before = page.evaluate("window.answered")
    page.evaluate("bytes => page.take(bytes)", image.flatten().tolist())
    page.wait_for_function(f"window.answered > {before}")
    return [
        {"name": row[0], "digit": int(row[2]), "shares": list(map(int, row[3:]))}
        for row in page.evaluate(
            "[...document.querySelectorAll('#answers tbody tr')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
    ]


def test_the_exported_networks_have_the_logits_of_pytorchs(draw, mnist):
    images = mnist.test.images[:1_000]
    text = base64.b64encode(bytes(images.flatten().tolist())).decode()
    for net in json.loads((SITE / "nets" / "nets.json").read_text())["nets"]:
        run = recorded([net["name"]], [STUDY])[net["name"]][0]
        with torch.no_grad():
            expected = Shown(run).eval()(images[:, None].float())[0]
        script = "([name, text]) => page.logits(name, page.decoded(text))"
        found = torch.tensor(draw.evaluate(script, [net["name"], text]))
        assert (found - expected).abs().max() <= 1e-4, net["name"]


def test_two_hundred_test_digits_are_read_as_pytorch_reads_them(draw, mnist):
    listed = json.loads((SITE / "nets" / "nets.json").read_text())["nets"]
    groups = recorded(folders=[STUDY])
    shown = {net["name"]: Shown(groups[net["name"]][0]).eval() for net in listed}
    agree = dict.fromkeys(shown, 0)
    for image in mnist.test.images[:200]:
        with torch.no_grad():
            expected = {n: s(image[None, None].float())[1][0] for n, s in shown.items()}
        for row in pixels(draw, image):
            same = row["digit"] == int(expected[row["name"]].argmax())
            near = max(
                abs(a - 100 * float(b))
                for a, b in zip(row["shares"], expected[row["name"]], strict=True)
            )
            agree[row["name"]] += same and near <= 0.6
    assert min(agree.values()) >= 198, agree


def greys(picture: Image.Image) -> list[float]:
    return (numpy.asarray(picture.convert("L")) / 255).flatten().tolist()


@pytest.mark.parametrize("index", range(12))
def test_a_picture_is_prepared_as_in_the_lesson(draw, mnist, index):
    picture = photo(mnist.test.images[index], index, light_on_dark=bool(index % 2))
    picture = picture.crop((0, 0, 400, 400)) if index % 3 else picture
    picture.thumbnail((400, 400))
    height, width = picture.height, picture.width
    script = "([values, h, w]) => [...page.prepare(Float64Array.from(values), h, w)]"
    found = torch.tensor(draw.evaluate(script, [greys(picture), height, width]))
    expected = as_mnist(picture).flatten().long()
    assert (found - expected).abs().max() <= 1


def test_strokes_are_read(draw):
    draw.click("#clear")
    draw.locator("#board").scroll_into_view_if_needed()
    box = draw.locator("#board").bounding_box()
    before = draw.evaluate("window.answered")
    for x, y, held in ((80, 60, False), (200, 60, True), (120, 230, True)):
        draw.mouse.move(box["x"] + x, box["y"] + y, steps=8)
        if not held:
            draw.mouse.down()
    draw.mouse.up()
    draw.wait_for_function(f"window.answered > {before}")
    shown = "document.getElementById('answer').textContent.includes(' reads 7, at ')"
    draw.wait_for_function(f"{shown} && document.querySelectorAll('#maps figure').length")
    assert draw.locator("#maps figure").count() >= 6  # five stages or more, and the evidence


def test_clear_while_the_networks_answer_leaves_no_answer(draw, mnist):
    script = """async (bytes) => {
      const answering = page.take(bytes);
      document.getElementById("clear").click();
      await answering;
      const rows = [...document.querySelectorAll("#answers tbody tr")];
      const cells = rows.flatMap((row) => [...row.cells].slice(2).map((cell) => cell.textContent));
      return [document.getElementById("answer").textContent, cells.join("")];
    }"""
    pixels(draw, mnist.test.images[0])
    said = draw.evaluate(script, mnist.test.images[1].flatten().tolist())
    assert said == ["Draw a digit.", ""]


def test_everything_is_reached_by_keyboard(draw):
    draw.locator("#board").focus()
    reached = []
    for _ in range(6):
        draw.keyboard.press("Tab")
        reached.append(draw.evaluate("document.activeElement.id"))
    assert reached[:4] == ["clear", "next", "hard", "photo"]
    assert "which" in reached
    draw.locator("#next").focus()
    before = draw.evaluate("window.answered")
    draw.keyboard.press("Enter")
    draw.wait_for_function(f"window.answered > {before}")


@pytest.fixture
def uploaded(draw, tmp_path):
    def upload(name: str, content: Image.Image | bytes) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
        draw.click("#clear")
        draw.set_input_files("#photo", path)
        draw.wait_for_function("document.getElementById('answer').textContent != 'Draw a digit.'")
        draw.wait_for_timeout(300)
        return draw.inner_text("#answer")

    return upload


def test_a_photo_is_read(uploaded, mnist):
    assert " reads 7, at " in uploaded("seven.png", photo(mnist.test.images[0], 0, False))


def test_what_is_no_digit_is_one_friendly_line(draw, uploaded):
    draw.click("#clear")
    assert draw.inner_text("#answer") == "Draw a digit."
    draw.evaluate("page.readBoard()")
    assert draw.inner_text("#answer").startswith("the picture is empty")
    draw.locator("#board").scroll_into_view_if_needed()
    box = draw.locator("#board").bounding_box()
    draw.mouse.click(box["x"] + 100, box["y"] + 100)
    answer = "document.getElementById('answer').textContent"
    draw.wait_for_function(f"{answer}.startsWith('the picture shows a dot')")
    assert uploaded("notes.txt", b"no picture").startswith("notes.txt cannot be read as a picture")
    huge = Image.new("1", (9000, 9000))
    assert uploaded("huge.png", huge).startswith("the picture has 9000x9000 pixels")
    assert uploaded("two.png", several()) == "the picture shows 2 digits; crop it to one"


def test_the_site_names_no_path_of_this_machine():
    for path in SITE.rglob("*"):
        if path.suffix in (".html", ".js", ".json", ".txt", ".css"):
            assert str(ROOT) not in path.read_text(encoding="utf-8", errors="ignore"), path
    assert os.path.getsize(SITE / "index.html") < 2_000_000
    assert isinstance(SITE, Path)
