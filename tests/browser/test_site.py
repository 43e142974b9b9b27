"""The built site in a real Chromium: `make test-browser` builds it first."""

import base64
import json
import re
from urllib.parse import unquote, urldefrag

import numpy
import pytest
import torch
from PIL import Image

from benchmarks.browser import served
from study.digit import as_mnist
from study.runs import recorded
from study.store import STUDY
from tests.test_digit import photo, several
from tests.test_notebooks import cells, each_notebook
from tools.site import NPM, SITE, Shown
from utils.data import ROOT

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="needs `make site`")
PAGES = sorted(
    str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts
)
AXE = NPM / "node_modules" / "axe-core" / "axe.min.js"
ANSWER = "document.getElementById('answer').textContent"
ROWS = """[...document.querySelectorAll('#answers tbody tr')]
          .map(row => [...row.cells].map(cell => cell.textContent))"""


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


@pytest.fixture(scope="module")
def networks() -> dict[str, Shown]:
    """Those that the page lists, as PyTorch has them."""
    names = [net["name"] for net in json.loads((SITE / "nets" / "nets.json").read_text())["nets"]]
    return {name: Shown(runs[0]).eval() for name, runs in recorded(names, [STUDY]).items()}


@pytest.mark.parametrize("width", [1200, 380])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_loads_clean(browser, base, scheme, width):
    view = {"width": width, "height": 900}
    page = browser.new_context(color_scheme=scheme, viewport=view, bypass_csp=True).new_page()
    said, asked, faults = [], [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        page.goto(base + name)
        page.wait_for_load_state("networkidle")
        if name == "draw.html":
            page.wait_for_function("window.ready", timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        faults += [(name, v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found]
    page.context.close()
    assert {url for url in asked if not url.startswith((base, "data:", "blob:"))} == set()
    assert (said, faults) == ([], [])


def test_no_internal_link_is_broken_and_no_path_of_this_machine_named():
    for name in PAGES:
        text = (SITE / name).read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#]+)[^"]*"', text):
            if not re.match(r"[a-z]+:", link):
                target = (SITE / name).parent / unquote(urldefrag(link)[0].split("?")[0])
                assert target.exists(), (name, link)
    for path in SITE.rglob("*"):
        if path.suffix in (".html", ".js", ".json", ".txt", ".css"):
            assert str(ROOT) not in path.read_text(encoding="utf-8", errors="ignore"), path


@each_notebook
def test_every_table_of_an_output_is_a_table(path):
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    made = ["\n| --" in output.get("data", {}).get("text/markdown", "") for output in outputs]
    page = (SITE / path.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<table") >= sum(made) > 0
    assert "| —" not in page  # as the dashes of a raw one become


def test_opened_as_a_file_the_page_says_that_it_needs_a_server(browser):
    page = browser.new_page()
    page.goto((SITE / "draw.html").as_uri())
    assert "Start a server" in page.inner_text("#answer")
    page.close()


def answers(page, act, *arguments) -> list[list[str]]:
    """The table of answers after something was done to the page."""
    before = page.evaluate("window.answered")
    act(*arguments)
    page.wait_for_function(f"window.answered > {before}")
    return page.evaluate(ROWS)


def test_the_page_has_the_logits_and_shows_the_answers_of_pytorch(draw, mnist, networks):
    images = mnist.test.images[:1_000]
    text = base64.b64encode(bytes(images.flatten().tolist())).decode()
    shares = {}
    for name, network in networks.items():
        with torch.no_grad():
            logits, probabilities, *_ = network(images[:, None].float())
        script = "([name, text]) => page.logits(name, page.decoded(text))"
        found = torch.tensor(draw.evaluate(script, [name, text]))
        assert (found - logits).abs().max() <= 1e-4, name
        shares[name] = 100 * probabilities
    for i, image in enumerate(images[:50]):
        take = draw.evaluate, "bytes => page.take(bytes)", image.flatten().tolist()
        for name, _, digit, *shown in answers(draw, *take):
            assert int(digit) == int(shares[name][i].argmax())
            assert (torch.tensor(list(map(float, shown))) - shares[name][i]).abs().max() <= 0.6


@pytest.mark.parametrize("index", range(12))
def test_a_picture_is_prepared_as_in_the_lesson(draw, mnist, index):
    picture = photo(mnist.test.images[index], index, light_on_dark=bool(index % 2))
    picture = picture.crop((0, 0, 400, 400)) if index % 3 else picture
    greys = (numpy.asarray(picture.convert("L")) / 255).flatten().tolist()
    script = "([values, h, w]) => [...page.prepare(Float64Array.from(values), h, w)]"
    found = torch.tensor(draw.evaluate(script, [greys, picture.height, picture.width]))
    assert (found - as_mnist(picture).flatten().long()).abs().max() <= 1


def board(page) -> tuple[float, float]:
    """Clears the board; returns its place."""
    page.click("#clear")
    assert page.inner_text("#answer") == "Draw a digit."
    page.locator("#board").scroll_into_view_if_needed()
    box = page.locator("#board").bounding_box()
    return box["x"], box["y"]


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def touched(request, browser, base):
    """The page as on a phone or a tablet, and what sends it touches and a pen."""
    width, scheme = request.param
    view = {"width": width, "height": 800}
    context = browser.new_context(color_scheme=scheme, viewport=view, has_touch=True)
    page = context.new_page()
    page.goto(base + "draw.html")
    page.wait_for_function("window.ready", timeout=60_000)
    yield page, context.new_cdp_session(page).send
    context.close()


def level(page, x: float, y: float) -> int:
    """How white the board is at a place, 0 to 255, in its own 140 pixels."""
    pen = "document.getElementById('board').getContext('2d')"
    return page.evaluate(f"([x, y]) => {pen}.getImageData(x, y, 1, 1).data[0]", [x, y])


def test_two_fingers_draw_two_strokes_and_a_pen_draws_one(touched):
    page, send = touched
    x, y = board(page)
    for down in range(0, 201, 20):
        places = [(60, 40 + down), (220, 40 + down)]
        fingers = [{"x": x + a, "y": y + b, "id": n} for n, (a, b) in enumerate(places)]
        kind = "touchMove" if down else "touchStart"
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert [level(page, each, 70) for each in (30, 70, 110)] == [255, 0, 255]
    page.wait_for_function(f"{ANSWER}.includes('shows 2 digits')")
    x, y = board(page)
    pen = {"pointerType": "pen", "button": "left", "buttons": 1, "clickCount": 1}
    for kind, right, down in (
        ("mousePressed", 80, 60), ("mouseMoved", 200, 60), ("mouseMoved", 150, 150),
        ("mouseMoved", 120, 230), ("mouseReleased", 120, 230),
    ):  # fmt: skip
        send("Input.dispatchMouseEvent", {"type": kind, "x": x + right, "y": y + down, **pen})
    page.wait_for_function("document.getElementById('big').textContent.startsWith('7')")
    bars = page.evaluate("[...document.querySelectorAll('#bars > div')].map(b => b.offsetHeight)")
    assert len(bars) == 10
    assert page.evaluate("document.querySelector('.draw-most').textContent") == "7"
    assert page.evaluate("document.querySelectorAll('#maps figure').length") == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_the_same_photo_twice_is_read_twice_and_clear_forgets_it(draw, mnist, tmp_path):
    photo(mnist.test.images[0], 0, False).save(tmp_path / "seven.png")

    def choose():
        with draw.expect_file_chooser() as chooser:
            draw.click("#photo")
        chooser.value.set_files(tmp_path / "seven.png")

    board(draw)
    assert answers(draw, choose) == answers(draw, choose)
    board(draw)
    assert draw.evaluate("document.getElementById('photo').value") == ""


def test_a_doubtful_digit_is_called_not_sure_with_a_second_guess(draw, mnist, networks):
    (name, network), *_ = networks.items()
    with torch.no_grad():
        shares = network(mnist.test.images[:, None].float())[1]
    image = int(shares.max(1).values.argmin())
    first, second = shares[image].topk(2).indices.tolist()
    take = draw.evaluate, "bytes => page.take(bytes)", mnist.test.images[image].flatten().tolist()
    answers(draw, *take)
    assert re.fullmatch(
        rf"{name} is not sure: {first} at \d+ %, or {second} at \d+ %", draw.inner_text("#answer")
    )
    assert draw.inner_text("#big") == f"{first}?"


def test_the_evidence_is_laid_over_the_digit_and_can_be_taken_away(draw, mnist):
    seven = mnist.test.images[0].flatten().tolist()
    answers(draw, draw.evaluate, "bytes => page.take(bytes)", seven)
    script = "[...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
    shown = torch.tensor(draw.evaluate(script)).view(28, 28, 4)
    assert (shown[..., 0] != shown[..., 2]).any()  # not grey
    answers(draw, draw.click, "#evidence")
    plain = torch.tensor(draw.evaluate(script)).view(28, 28, 4)
    assert (plain[..., 0] == plain[..., 2]).all()
    answers(draw, draw.click, "#evidence")
    answers(draw, draw.select_option, "#which", "1")
    assert draw.is_disabled("#evidence")  # model 1 does not pool
    answers(draw, draw.select_option, "#which", "wild-final")


def test_clear_while_the_networks_answer_leaves_no_answer(draw, mnist):
    script = """async (bytes) => {
      await page.take(bytes);
      const answering = page.take(bytes);
      document.getElementById("clear").click();
      await answering;
    }"""
    draw.evaluate(script, mnist.test.images[1].flatten().tolist())
    assert draw.inner_text("#answer") == "Draw a digit."
    assert {cell for row in draw.evaluate(ROWS) for cell in row[2:]} == {""}


def test_everything_is_reached_by_keyboard(draw):
    draw.locator("#board").focus()
    reached = []
    for _ in range(6):
        draw.keyboard.press("Tab")
        reached.append(draw.evaluate("document.activeElement.id"))
    assert reached[:4] == ["clear", "next", "hard", "photo"]
    assert "which" in reached
    draw.locator("#next").focus()
    assert answers(draw, draw.keyboard.press, "Enter")[0][2] in "0123456789"


def test_a_photo_is_read_and_what_is_no_digit_is_one_friendly_line(draw, mnist, tmp_path):
    photo(mnist.test.images[0], 0, False).save(tmp_path / "seven.png")
    (tmp_path / "notes.txt").write_bytes(b"no picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    several().save(tmp_path / "two.png")
    for name, line in (
        ("seven.png", r"\S+ reads 7, at \d+ %"),
        ("notes.txt", "notes.txt cannot be read as a picture; save it as PNG or JPEG"),
        ("huge.png", "the picture has 9000x9000 pixels; .*"),
        ("two.png", "the picture shows 2 digits; keep only one"),
    ):
        board(draw)
        draw.set_input_files("#photo", tmp_path / name)
        draw.wait_for_function(f"/^{line}$/.test({ANSWER})")
    x, y = board(draw)
    draw.evaluate("page.readBoard()")
    draw.wait_for_function(f"{ANSWER}.startsWith('the picture is empty')")
    draw.mouse.click(x + 100, y + 100)
    draw.wait_for_function(f"{ANSWER}.startsWith('the picture shows a dot')")
