import os

import matplotlib
import numpy
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from study.digit import SURE, PictureError, Reading, as_mnist, read_digit
from study.show import lesson
from study.store import load_network
from tests.conftest import of_study
from utils.augmentation import normalise
from utils.evaluation import predict, raw_pixels

DEJAVU = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def test_a_digit_of_mnist_stays_what_it_is(mnist):
    images = mnist.test.images[:300]
    again = torch.stack([as_mnist(image) for image in images])
    apart = (again.float() - images.float()).abs().amax((1, 2))
    assert (apart <= 1).float().mean() > 0.85  # the others move by a pixel, or have a speck less
    assert apart.mean() < 30


def photo(image: torch.Tensor, seed: int, light_on_dark: bool) -> Image.Image:
    """A digit somewhere on a page, shaded or lined, with the grain of a camera."""
    random = numpy.random.default_rng(seed)
    digit = Image.fromarray(image.numpy()).resize((200, 200), Image.Resampling.BICUBIC)
    page = Image.new("L", (600, 500))
    page.paste(digit, (int(random.integers(30, 350)), int(random.integers(30, 250))))
    y, x = numpy.mgrid[0:1:500j, 0:1:600j]
    paper = (
        0.75 + 0.15 * x - 0.2 * y,  # lit from one side
        0.9 - 0.5 * numpy.exp(-((x / 0.1) ** 2)),  # a soft shadow along an edge
        0.9 - 0.4 / (1 + numpy.exp((x + y - 0.5) / 0.05)),  # a hand's, in a corner
        0.9 - 0.4 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),  # a vignette
        0.9 - 0.6 * (abs(x - 0.04) < 0.005),  # a margin line
        0.9 - 0.5 * (abs(numpy.sin(40 * x)) < 0.1) - 0.3 * (abs(numpy.sin(33 * y)) < 0.1),
    )[seed % 6]
    grey = paper * (1 - 0.75 * numpy.asarray(page) / 255) + random.normal(0, 0.02, x.shape)
    grey = numpy.clip(1 - grey if light_on_dark else grey, 0, 1)
    return Image.fromarray((grey * 255).astype("uint8"))


def test_photos_are_read(mnist, final):
    photos = (photo(mnist.test.images[i], i, light_on_dark=bool(i % 2)) for i in range(40))
    answers = [read_digit(each, final[0]).digit for each in photos]
    assert answers == mnist.test.labels[:40].tolist()


STROKES = {  # a digit of 300 pixels, white on black, as other hands and other pens would draw it
    "plain": lambda d: d,
    "thick": lambda d: d.filter(ImageFilter.MaxFilter(19)),
    "thin": lambda d: d.filter(ImageFilter.MinFilter(9)),
    "slanted": lambda d: d.transform(d.size, Image.Transform.AFFINE, (1, 0.25, -37, 0, 1, 0)),
    "rotated": lambda d: d.rotate(12, Image.Resampling.BICUBIC),
    "blurred": lambda d: d.filter(ImageFilter.GaussianBlur(9)),
    "coarse": lambda d: d.resize((14, 14), Image.Resampling.BOX).resize((300, 300)),
    "wide": lambda d: d.resize((400, 300)),
}
Y, X = numpy.mgrid[0:1:450j, 0:1:500j]
PAPERS = {  # how light a page of 500 x 450 pixels is
    "white": 0.95 + 0 * X,
    "shaded": 0.9 - 0.35 * X - 0.1 * Y,
    "ruled": 0.95 - 0.3 * (abs(numpy.sin(20 * Y)) < 0.06),
    "densely squared": 0.95 - 0.6 * (numpy.maximum(numpy.sin(240 * X), numpy.sin(216 * Y)) > 0.9),
    "vignetted": 0.95 - 0.8 * ((X - 0.5) ** 2 + (Y - 0.5) ** 2),
    "dark": 0.95 + 0 * X,
}


def page(image: torch.Tensor, stroke: str, paper: str) -> Image.Image:
    """The digit on a page, with the grain of a camera."""
    large = Image.fromarray(image.numpy()).resize((300, 300), Image.Resampling.BICUBIC)
    ink = Image.new("L", (500, 450))
    ink.paste(STROKES[stroke](large), (60, 90))
    grain = numpy.random.default_rng(0).normal(0, 0.015, X.shape)
    grey = numpy.clip(PAPERS[paper] * (1 - 0.8 * numpy.asarray(ink) / 255) + grain, 0, 1)
    return Image.fromarray(((1 - grey if paper == "dark" else grey) * 255).astype("uint8"))


def test_of_all_kinds_of_pictures_all_but_one_are_read_or_called_not_sure(mnist):
    wild = of_study("wild-final")[0]
    kinds, wrong = [(stroke, paper) for stroke in STROKES for paper in PAPERS], []
    for index, (how, paper) in enumerate(kinds, start=100):
        reading = read_digit(page(mnist.test.images[index], how, paper), wild)
        if reading.sure and reading.digit != mnist.test.labels[index]:
            wrong.append((how, paper, int(mnist.test.labels[index]), str(reading)))
    assert len(kinds) == 48
    assert len(wrong) <= 1, wrong


def test_what_is_no_digit_is_mostly_refused_or_not_sure():
    """Letters that look like no digit, and scribbles."""
    wild = of_study("wild-final")[0]
    random, unsure = numpy.random.default_rng(0), []
    for index in range(60):
        picture = Image.new("L", (300, 300), 255)
        draw = ImageDraw.Draw(picture)
        if index % 2:
            font = ImageFont.truetype(DEJAVU, 200)
            draw.text((80, 40), "ADEFHKMNPRTUWXYakmnptwx"[index // 2 % 23], fill=0, font=font)
        else:
            points = random.integers(40, 260, (random.integers(5, 12), 2))
            draw.line([tuple(map(int, p)) for p in points], fill=0, width=12, joint="curve")
        try:
            unsure.append(not read_digit(picture, wild).sure)
        except PictureError:
            unsure.append(True)
    assert sum(unsure) > 30


def test_a_reading_names_the_second_guess_below_the_threshold():
    shares = [0.0] * 10
    shares[7], shares[1] = SURE, 1 - SURE
    sure = Reading(7, tuple(shares), torch.zeros(28, 28))
    assert (sure.sure, sure.second) == (True, 1)
    assert str(sure) == f"7, with a probability of {100 * SURE:.0f} %"
    shares[7], shares[1] = 0.6, 0.4
    assert str(Reading(7, tuple(shares), sure.image)) == "not sure, 7 (60 %) or 1 (40 %)"


def test_a_mark_at_the_border_of_ruled_paper_does_not_vanish_with_the_lines():
    paper = numpy.ones((120, 120))
    paper[20::25] = 0.2
    paper[50:58, :1] = 0.2
    assert as_mnist(paper).max() == 255


@pytest.mark.parametrize("ink", [0, 255])
def test_a_drawing_on_a_transparent_ground(final, ink):
    drawing = numpy.zeros((200, 200, 4), numpy.uint8)
    drawing[40:160, 95:110] = (ink, ink, ink, 255)
    assert read_digit(Image.fromarray(drawing), final[0]).digit == 1


def test_a_path_a_float_and_a_colour_picture_are_one(tmp_path, mnist):
    image = mnist.test.images[0]
    Image.fromarray(image.numpy()).save(tmp_path / "seven.png")
    expected = as_mnist(image)
    path, colour = tmp_path / "seven.png", numpy.stack([image.numpy()] * 3, axis=2)
    for form in (path, str(path), image.float() / 255, image[None], colour):
        assert torch.equal(as_mnist(form), expected)


def several() -> Image.Image:
    picture = Image.new("L", (600, 300), 255)
    draw = ImageDraw.Draw(picture)
    draw.line([(100, 50), (100, 250)], fill=0, width=20)
    draw.line([(300, 50), (400, 50), (350, 250)], fill=0, width=20)
    return picture


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (numpy.pad(numpy.ones((20, 20)), 60), "the picture shows a dot; draw a digit"),
        (several(), "the picture shows 2 digits; keep only one"),
        (numpy.vstack([several().crop((0, 0, 200, 300))] * 2), "the picture shows 2 digits"),
        (1 - 0.6 * numpy.exp(-((numpy.mgrid[0:300, 0:300][1] / 40) ** 2)), "the picture is empty"),
        (Image.new("L", (100, 100), 255), "the picture is empty"),
        (numpy.full((28, 28), numpy.nan), "pixels that are NaN or infinite"),
        (Image.new("1", (9000, 9000)), "has 9000x9000 pixels; shrink it"),
        (numpy.zeros((2, 3, 4, 5)), r"not float64 of shape \(2, 3, 4, 5\)"),
        (numpy.zeros((0, 5)), r"not float64 of shape \(0, 5\)"),
        (numpy.array(["a"]), "an array of numbers"),
        ("no/such.png", "there is no picture no/such.png"),
        (__file__, "cannot be read as a picture .* save it as PNG or JPEG"),
        (".", "is no file; give the path of a picture"),
        (os.devnull, "is no file; give the path of a picture"),
        ("~nobody-of-that-name/x.png", "there is no picture"),
        ("a" * 5_000, "cannot be read as a picture"),
    ],
)
def test_what_is_no_picture_of_a_digit_is_one_line(picture, message):
    with pytest.raises(PictureError, match=message) as error:
        as_mnist(picture)
    assert "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"PictureError: {error.value}"]


def test_in_a_notebook_a_bad_picture_is_a_printed_line(final, capsys):
    assert lesson.show_digit("no/such.png", final[0]) is None
    assert capsys.readouterr().out.startswith("there is no picture no/such.png")


def test_predict_mends_what_it_can(mnist, final):
    images, network = mnist.test.images[:50], load_network(final[0])
    statistics = final[0].statistics
    expected = network(normalise(images[:, None].float() / 255, statistics)).detach()
    for form in (images, images.numpy(), images[:, None], images.float() / 255, images.long()):
        found = predict(network.train(), form, statistics)  # which leaves training mode
        assert torch.allclose(found, expected, atol=1e-5)
    assert raw_pixels(images > 127).max() == 255  # True is full ink


@pytest.mark.parametrize("light_on_dark", [True, False])
def test_a_scan_of_sixteen_bits_reads_as_one_of_eight(mnist, tmp_path, light_on_dark):
    eight = mnist.test.images[0].numpy() if light_on_dark else 255 - mnist.test.images[0].numpy()
    sixteen = eight.astype(numpy.uint16) * 257
    Image.fromarray(sixteen).save(tmp_path / "scan.png")
    assert torch.equal(as_mnist(tmp_path / "scan.png"), as_mnist(eight))
    assert torch.equal(as_mnist(Image.fromarray(eight.astype(numpy.float32))), as_mnist(eight))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(28, 28), r"have shape \(28, 28\); expected \[N, 28, 28\]"),
        (torch.zeros(2, 3, 28, 28), "have shape"),
        (torch.full((1, 28, 28), -0.42), "from -0.42 to -0.42; expected uint8 0 to 255 or floats"),
        (torch.full((1, 28, 28), 256), "from 256 to 256"),
        (torch.full((1, 28, 28), float("nan")), "from nan to nan"),
    ],
)
def test_predict_refuses_what_it_would_misread(images, message):
    with pytest.raises(ValueError, match=message):
        raw_pixels(images)
