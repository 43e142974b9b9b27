"""Every kind of figure: its style once, and the data that it draws."""

import base64
import io
from unittest.mock import Mock

import numpy
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex
from PIL import Image, ImageChops, ImageStat

from models import MODELS, SeparableConfig, build
from study import findings, robustness, statistics, trials
from study.digit import read_digit
from study.published import PUBLIC
from study.show import diagrams, look, pictures, plots
from study.store import load_network
from tests.test_statistics import altered, ending
from utils.augmentation import apply_affine, sample_affine
from utils.data import Split
from utils.figures import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, show
from utils.recipes import RECIPES

PIXELS = 0.13, 0.31  # statistics for networks that are not trained
pyplot.style.use("dark_background")  # as a user might have it


def check(figure):
    """What holds for every figure: white, titled, with an alternative text and named axes."""
    figure.canvas.draw()
    assert (figure.get_facecolor(), pyplot.rcParams["text.color"]) == ((1, 1, 1, 1), "black")
    assert figure.get_suptitle().replace("\n", " ") in figure.alt
    assert figure.get_size_inches()[0] <= 8  # legible on a phone
    named = [a for a in figure.axes if a.axison and len(a.get_xticks())]
    assert all(axes.get_xlabel() for axes in named)
    assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in named) or not named
    pyplot.close(figure)
    return figure


def lines(axes) -> dict:
    """{label: (colour, [(x, y), ...])} of the lines in the legend."""
    named = [line for line in axes.lines if line.get_label()[0] != "_"]
    return {line.get_label(): (line.get_color(), line.get_xydata()) for line in named}


def points(axes) -> list[tuple]:
    """(x, y, colour of the face) of every dot, as they were drawn."""
    found = []
    for dots in axes.collections:
        places = dots.get_offsets()
        faces = numpy.resize(dots.get_facecolor(), (len(places), 4))
        found += [(*p, to_hex(face).upper()) for p, face in zip(places, faces, strict=True)]
    return found


def seen(figure) -> list:
    """The array of the image in every panel that has one."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def series(run, field):
    return [(row.epoch, getattr(row, field)) for row in run.history]


def curves(found, _):
    run, old = found["4"][0], found["3"][0]
    figure = plots.curves([run], [old])
    expected = [
        {
            "model 3, test": (GREY, series(old, f"test_{kind}")),
            "train": (ORANGE, series(run, f"train_{kind}")),
            "test": (BLUE, series(run, f"test_{kind}")),
        }
        for kind in ("loss", "accuracy")
    ]
    return figure, list(map(lines, figure.axes)), expected


def tried(found, _):
    run, *others = found["4"]
    figure = plots.tried(run, others)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    ends = [sorted({y for x, y in band if x == epoch}) for epoch in (1, 9)]
    there = [[other.test_accuracy[epoch - 1] for other in others] for epoch in (1, 9)]
    own = {"your run": (VERMILION, series(run, "test_accuracy"))}
    return figure, [lines(figure.axes[0]), ends], [own, [(min(t), max(t)) for t in there]]


def ladder(found, _):
    groups = {name: found[name][:1] for name in ("4", "9")}
    figure = plots.ladder(groups)
    axes = figure.axes[0]
    last = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 5]
    dots = [dot for dot in points(axes) if dot[2] in (BLUE, "#FFFFFF")]
    accuracies = [runs[0].test_accuracy[-5:] for runs in groups.values()]
    expected = [[(i, accuracy) for accuracy in each] for i, each in enumerate(accuracies)]
    ends = [(i, runs[0].test_accuracy[-1], face(runs[0])) for i, runs in enumerate(groups.values())]
    return figure, [last, dots], [expected, ends]


def face(run):
    return BLUE if statistics.verdict(run).met else "#FFFFFF"


def drops(found, _):
    figure = plots.drops({"9": found["9"]})
    first = [(*statistics.rate_drops(run), 16)[0] for run in found["9"]]
    expected = [(x, r.test_accuracy[-1], face(r)) for x, r in zip(first, found["9"], strict=True)]
    return figure, points(figure.axes[0]), expected


def forest(*_):
    effects = findings.effects()
    figure = plots.forest(effects)
    ends = [line.get_xydata() for line in figure.axes[0].lines[:-1]]
    middles = [(x, y) for x, y, _ in points(figure.axes[0])]
    rows = [(effect, row) for row, (effect, _) in enumerate(effects.values())]
    intervals = [((e.low, row), (e.high, row)) for e, row in rows]
    return figure, [ends, middles], [intervals, [(e.value, row) for e, row in rows]]


def frontier(found, _):
    tried = base, muon = trials.outcomes("tiny-")[:2]  # of one size
    figure = plots.frontier({"4": found["4"], "9": found["9"]}, PUBLIC, tried)
    ours = [(r[0].parameters, statistics.final_test(r).mean, BLUE) for r in map(found.get, "49")]
    public = [(p.parameters, p.last, VERMILION) for p in PUBLIC]
    steps = {line.get_color(): dict(line.get_xydata()) for line in figure.axes[1].lines}
    drawn = [*map(points, figure.axes), steps[SKY], steps[GREEN]]
    old, new = ({base.parameters: best.score} for best in (base, muon))
    return figure, drawn, [ours + public, ours[1:] + public, old, new]


def strokes(_, mnist):
    figure = pictures.strokes(mnist.train)
    lengths = pictures.stroke_lengths(mnist.train)
    shares = [100 * float((lengths == length).float().mean()) for length in range(16)]
    windows = [line.get_xdata()[0] for line in figure.axes[0].lines]
    drawn = [bar.get_height() for bar in figure.axes[0].patches]
    return figure, [drawn, windows], [shares, [1.5, 3.5, 5.5]]


def augmented(_, mnist):
    originals, recipe = mnist.train.images[:3], RECIPES["plateau"]
    figure = pictures.augmented(originals, recipe, rows=1)
    matrices = sample_affine(recipe, 3, torch.Generator().manual_seed(0))
    changed = apply_affine(originals.unsqueeze(1).float(), matrices).squeeze(1)
    return figure, seen(figure), [*originals, *changed]


@pytest.mark.parametrize("condition", robustness.CONDITIONS)
def test_accuracy_under_a_condition_is_drawn(found, condition):
    runs = found["9-final"][:2]
    accuracies = robustness.accuracies({"9": found["9"][:1], "9-final": runs}, condition)
    drawn = lines(check(pictures.robustness(accuracies, condition)).axes[0])
    both = [each.accuracy[condition] for each in robustness.recorded_answers(runs)]
    expected = zip(robustness.CONDITIONS[condition], numpy.mean(both, 0), strict=True)
    assert rounded(drawn["9-final (n = 2)"]) == rounded((ORANGE, expected))


def shared_mistakes(found, mnist):
    runs = [found[name][0] for name in ("4", "9", "10")]
    wrong = [set(each.wrong) for each in robustness.recorded_answers(runs)]
    n, missed, shared = robustness.shared_mistakes(runs, mnist.test)
    assert (n, missed) == (3, len(set.union(*wrong)))
    figure = pictures.shared_mistakes((n, missed, shared), mnist.test)
    indices = [index for index, *_ in shared]
    assert {i for i in set.union(*wrong) if sum(i in w for w in wrong) > 1.5} == set(indices)
    drawn = [axes.get_title().replace("*", "") for axes in figure.axes if axes.images]
    expected = [f"{int(mnist.test.labels[i])} as {a}, {s:.0%}" for i, s, a in shared]
    return figure, [drawn, seen(figure)], [expected, mnist.test.images[indices]]


def calibration(found, _):
    name, runs = "9-final", found["9-final"]
    error, bins = robustness.calibration(runs)
    figure = pictures.calibration((error, bins), name)
    expected = [(100 * sure, 100 * share) for sure, share, n in bins if n >= pictures.FEW]
    return figure, lines(figure.axes[0])["the networks"], (BLUE, expected)


def answer(found, mnist):
    reading = read_digit(mnist.test.images[0], found["9-final"][0])
    figure = pictures.answer(reading)
    colours = [BLUE if digit == 7 else SKY for digit in range(10)]
    bars = [(b.get_center()[0], b.get_height(), b.get_facecolor()) for b in figure.axes[1].patches]
    drawn = [(*place, to_hex(colour).upper()) for *place, colour in bars]
    expected = zip(range(10), (100 * p for p in reading.probabilities), colours, strict=True)
    return figure, [seen(figure), drawn], [[reading.image], expected]


def stages(_, mnist):
    network, image = build(MODELS[6]).eval(), mnist.test.images[0]
    figure = look.stages(network, image, PIXELS)
    with torch.inference_mode():
        edges = network.edges((image[None, None] / 255 - 0.13) / 0.31)
        middle = network.middle(network.squeeze_1(network.pool(edges)))
        late = network.late(network.squeeze_2(middle))[0]
    arrays = seen(figure)
    return figure, [*arrays[: edges.shape[1]], *arrays[-len(late) :]], [*edges[0], *late]


def signal(*_):
    figure = look.signal({1: [2.0, 3.0]}, {1: [4.0, 5.0]}, 94)
    drawn = [lines(axes)["model 1"] for axes in figure.axes]
    return figure, drawn, [(BLUE, [(1, 2), (2, 3)]), (BLUE, [(1, 4), (2, 5)])]


def receptive_fields(_, mnist):
    figure = diagrams.receptive_fields(mnist.test.images[0], 1)
    squares = [(s.get_x(), s.get_y(), s.get_width()) for s in figure.axes[0].patches]
    fields = (11.5, 3), (10.5, 5), *((13.5 - field / 2, field) for field in (6, 10, 14, 18, 22, 32))
    return figure, squares, [(corner, corner, field) for corner, field in fields]


def diagram(*_):
    figure = diagrams.diagram(1)
    blocks = [(b.get_x() + b.get_width() / 2, b.get_width()) for b in figure.axes[0].patches]
    channels = 16, 32, 32, 16, 32, 64, 16, 32, 64, 10
    return figure, blocks, [(x, 0.08 + 0.84 * c / 64) for x, c in enumerate(channels)]


def rounded(value):
    """Numbers in any nesting rounded to five decimals; texts as they are."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if hasattr(value, "__iter__") and getattr(value, "ndim", 1):
        return [rounded(each) for each in value]
    return round(float(value), 5) + 0.0


DRAWN = [
    curves, tried, ladder, drops, forest, frontier, strokes,
    augmented, shared_mistakes, calibration, answer, stages, signal,
    receptive_fields, diagram,
]  # fmt: skip


@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
def test_what_is_drawn_is_the_data(draw, found, mnist):
    figure, drawn, expected = draw(found, mnist)
    check(figure)
    assert rounded(drawn) == rounded(expected)


def test_a_frontier_on_other_data_has_nothing_public_beside_it(found):
    elsewhere = [altered(run, data_checksum="0123") for run in found["9"]]
    figure = check(plots.frontier({"9": elsewhere}, PUBLIC, trials.outcomes("tiny-")))
    (label,) = figure.legends[0].texts
    assert label.get_text() == "ours, on the test set: mean of the final epoch, 95 % interval"


def test_a_difference_that_rounds_to_zero_has_no_minus():
    figure = check(plots.curves(ending([99.5, 99.501]), ending([99.503, 99.5])))
    assert "+0.00 points" in figure.get_suptitle()


def test_changed_layers_are_those_of_one_network_alone():
    added = "+late.norm5: BatchNorm2d(10)"
    assert added in diagrams.changed_layers(3, 4).splitlines()
    assert diagrams.changed_layers(4, 3).splitlines().count(added.replace("+", "-")) == 1
    assert diagrams.changed_layers(7, 8) == ""  # the training changed


def test_every_model_has_a_diagram_and_the_change_is_orange():
    for model in MODELS:
        check(diagrams.diagram(model))
    figure, blocks = check(diagrams.diagram(6)), diagrams._blocks(6)
    drawn = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    assert [c == ORANGE for c in drawn if c in (ORANGE, SKY)] == [False] * 9 + [True, True]  # head
    assert [b.parameters for b in blocks] == [110, 1104, 0, 120, 920, 1104, 96, 720, 920, 0, 100]
    check(diagrams.diagram(SeparableConfig((8, 8, 8))))
    blocks = diagrams._blocks(SeparableConfig((10, 14, 17), (1, 1, 1)))
    outputs = [b.output for b in blocks if b.layer.startswith("depthwise")]
    assert outputs == [(10, 28, 28), (14, 14, 14), (17, 7, 7)]  # as wide as the block's output


@pytest.mark.parametrize(
    ("config", "pixels"), [(MODELS[6], 6 * 2), (SeparableConfig((6, 8, 8)), 7 * 4)]
)
def test_a_class_activation_map_lies_over_its_pixels(mnist, config, pixels):
    network = build(config).eval()
    figure = check(look.class_activation(network, mnist.test.images[:2], PIXELS))
    left, right, bottom, top = figure.axes[0].images[1].get_extent()
    assert (right - left, bottom - top) == (pixels, pixels)
    assert left + right == 27  # its middle is the image's


def test_class_activation_maps_sum_to_the_logits(mnist, found):
    record, image = found["6"][0], mnist.test.images[:1]
    network = load_network(record)
    figure = check(look.class_activation(network, image, record.statistics))
    logits = look.outputs(network, {"head": network.head}, image, record.statistics)["head"]
    (most, less), (first, second) = (best.tolist() for best in logits.flatten().topk(2))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{first}, {most:+.1f}", f"2nd: {second}, {less:+.1f}"]


def test_stroke_lengths_by_hand():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3, 5:9] = image[0, 4, 27] = image[0, 5, 0:2] = 255
    lengths = pictures.stroke_lengths(Split(image, torch.zeros(1, dtype=torch.int64)))
    assert lengths.tolist() == [4, 1, 2]


def test_show_sends_the_figures_own_text(monkeypatch, found):
    figure, display = plots.curves(found["1"]), Mock()
    monkeypatch.setattr("utils.figures.display", display)
    show(figure)
    (content,), options = display.call_args
    assert content["text/plain"] == figure.alt
    assert options["metadata"] == {"image/png": {"alt": figure.alt}}
    drawn = Image.open(io.BytesIO(base64.b64decode(content["image/png"]))).convert("RGB")
    figure.savefig(exact := io.BytesIO(), bbox_inches="tight")
    apart = ImageChops.difference(drawn, Image.open(exact).convert("RGB"))
    assert max(ImageStat.Stat(apart).mean) < 1  # of 255 greys
