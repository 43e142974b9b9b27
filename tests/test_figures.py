import base64
import copy
import io
from dataclasses import replace

import pytest
import torch
from matplotlib import pyplot
from PIL import Image, ImageChops, ImageStat

from models import MODELS, SeparableConfig, build
from study import findings, trials
from study import statistics as analysis
from study.digit import read_digit
from study.published import PUBLIC
from study.robustness import CONDITIONS, rotated, shifted
from study.runs import recorded
from study.show import lesson, look, pictures, plots, sizes
from study.store import STUDY, load_network
from tests.conftest import subset
from utils import diagrams
from utils.data import Split
from utils.figures import show
from utils.recipes import RECIPES


@pytest.fixture(scope="module")
def found():
    return recorded(["1", "3", "4", "6", "9", "9-final", "10"], [STUDY])


@pytest.fixture
def check():
    """What holds for every figure: white, titled, said in words, axes with names."""

    def checked(figure):
        figure.canvas.draw()
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_suptitle()
        assert figure.get_suptitle().replace("\n", " ") in figure.alt
        assert figure.get_size_inches()[0] <= 8  # legible on a phone
        named = [a for a in figure.axes if a.axison and len(a.get_xticks())]
        assert all(axes.get_xlabel() for axes in named)
        assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in named) or not named
        pyplot.close(figure)
        return figure

    return checked


def test_figures_of_records(found, check):
    check(plots.curves(found["4"], found["3"]))
    check(plots.ladder(found))
    check(plots.drops({name: found[name] for name in ("9", "10", "4")}))
    met = sum(analysis.runs_meeting_brief(found[name]) for name in ("9", "9-final"))
    total = len(found["9"]) + len(found["9-final"])
    every = check(plots.every_run({name: found[name] for name in ("9", "9-final")}))
    assert f" {met} of {total} runs meet the brief" in every.get_suptitle()
    dots = [dot for dot in every.axes[0].collections if len(dot.get_offsets())]
    assert sum(any(dot.get_facecolor()[0][:3] != (1, 1, 1)) for dot in dots) == met < total
    check(plots.forest(findings.effects()))
    beside = check(sizes.frontier(found, PUBLIC)).legends[0].texts
    assert any(PUBLIC[0].source in text.get_text() for text in beside)
    elsewhere = [copy.copy(run) for run in found["9"]]
    for run in elsewhere:  # `replace` would find that the parts disagree
        object.__setattr__(run, "data_checksum", "0123")
    alone = check(sizes.frontier({"9": elsewhere}, PUBLIC)).legends[0].texts
    assert not any(PUBLIC[0].source in text.get_text() for text in alone)
    check(plots.tried(found["4"][0], found["4"][1:]))
    tried = trials.outcomes("best-trial")
    whole = [each for each in tried if "epochs" not in each.name]  # short ones are left out
    enough = sum(each.lowest >= trials.LOWEST_OF_A_FINAL for each in whole)
    assert len(whole) < len(tried)
    shown = check(sizes.searched(tried)).get_suptitle()
    assert shown.startswith(f"{enough} of {len(whole)} trials reach")
    title = check(pictures.confusion(found["9"][0])).get_suptitle()
    assert f": {sum(map(sum, found['9'][0].confusion)) - _right(found)} mistakes" in title


def _right(found) -> int:
    return sum(found["9"][0].confusion[digit][digit] for digit in range(10))


def test_figures_of_images(mnist, found, check):
    check(pictures.samples_per_class(mnist.train, mnist.test))
    check(pictures.strokes(mnist.train))
    check(pictures.images(mnist.test.images[:3], ["a", "b", "c"], "three digits"))
    check(pictures.warped(mnist.train.images[:4], RECIPES["plateau"]))
    for condition in CONDITIONS:
        check(pictures.robustness({"9": found["9"], "9-final": found["9-final"]}, condition))
    check(pictures.calibration(found["9-final"]))
    check(pictures.answer(read_digit(mnist.test.images[0], found["9-final"][0])))
    figure = check(pictures.shared_mistakes([found[n][0] for n in ("4", "9", "10")], mnist.test))
    assert "of 3 networks" in figure.get_suptitle()


def test_figures_of_networks(mnist, found, check):
    image = mnist.test.images[0]
    for model in MODELS:
        check(diagrams.diagram(model))
    check(diagrams.diagram(SeparableConfig((8, 8, 8)), MODELS[1]))
    check(diagrams.receptive_fields(image, 1))
    check(look.signal(mnist, images=256))
    for name in ("3", "6"):
        record = found[name][0]
        network = load_network(record)
        check(look.first_filters(network, image, record.statistics))
        check(look.stages(network, image, record.statistics))
        check(diagrams.parameters(network))
    check(look.class_activation(network, mnist.test.images[:2], record.statistics))
    check(diagrams.parameters(build(SeparableConfig((6, 8, 8))).eval()))


def test_gates_are_averaged_by_digit(mnist, check):
    some = subset(mnist, 10, 200).test
    torch.manual_seed(0)
    network = build(replace(MODELS[10], squeeze_excitation=4)).eval()
    check(look.gates(network, some, (0.13, 0.31)))
    together = look.gate_means(network, some, (0.13, 0.31))
    for digit in (3, 7):
        rows = some.labels == digit
        alone = look.gate_means(network, Split(some.images[rows], some.labels[rows]), (0.13, 0.31))
        for whole, part in zip(together, alone, strict=True):
            assert torch.allclose(whole[digit], part[digit], atol=1e-6)
    assert not torch.allclose(together[0][3], together[0][7], atol=1e-6)
    without = Split(some.images[some.labels != 3], some.labels[some.labels != 3])
    assert "nan" not in check(look.gates(network, without, (0.13, 0.31))).get_suptitle()
    assert not network.edges.gate.scale_activation._forward_hooks
    with pytest.raises(ValueError, match="has no gates"):
        look.gate_means(build(10), some, (0.13, 0.31))


@pytest.mark.parametrize(
    ("config", "pixels"), [(MODELS[6], 6 * 2), (SeparableConfig((6, 8, 8)), 7 * 4)]
)
def test_evidence_lies_over_the_pixels_that_it_is_about(mnist, config, pixels):
    network = build(config).eval()
    _, over = look.class_activation(network, mnist.test.images[:1], (0.13, 0.31)).axes[0].images
    left, right, bottom, top = over.get_extent()
    assert (right - left, bottom - top) == (pixels, pixels)
    assert left + right == 27  # its middle is the image's


def test_evidence_adds_up_to_the_logits(mnist, found):
    record, image = found["6"][0], mnist.test.images[:1]
    network = load_network(record)
    shown = look.class_activation(network, image, record.statistics)
    titles = [axes.get_title() for axes in shown.axes]
    logits = []
    network.head.register_forward_hook(lambda _, __, output: logits.append(output.flatten()))
    look.predict(network, image, record.statistics)
    best = logits[0].topk(2)
    (first, second), (most, next_) = best.indices.tolist(), best.values.tolist()
    assert titles == [f"{first}, {most:+.1f}", f"next best: {second}, {next_:+.1f}"]
    pyplot.close(shown)


def test_what_changed_is_orange_and_nothing_else():
    blocks, old = diagrams._blocks(6), diagrams._blocks(5)
    changed = [diagrams._changed(block, old[i : i + 1]) for i, block in enumerate(blocks)]
    assert changed == [False] * 9 + [True, True]  # the head
    assert [b.parameters for b in blocks] == [110, 1104, 0, 120, 920, 1104, 96, 720, 920, 0, 100]


def test_a_separable_block_is_as_wide_as_what_it_puts_out():
    blocks = diagrams._blocks(SeparableConfig((10, 14, 17), (1, 1, 1)))
    assert [b.output for b in blocks if b.layer.startswith("depthwise")] == [
        (10, 28, 28), (14, 14, 14), (17, 7, 7)
    ]  # fmt: skip


def test_a_slope_is_a_slope_and_a_blob_is_none():
    slope = torch.tensor([[-1.0, 0, 1]] * 3)
    blob = torch.ones(3, 3)
    shares = look.slope_share(torch.stack([slope, slope.T, blob, slope + slope.T]))
    torch.testing.assert_close(shares, torch.tensor([1.0, 1, 0, 1]))
    noise = look.slope_share(torch.randn(20_000, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert noise.mean() == pytest.approx(2 / 9, abs=0.005)  # as the title says


def test_stroke_lengths_by_hand():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 3, 5:9] = 255
    image[0, 4, 27] = 255
    image[0, 5, 0:2] = 255
    lengths = pictures.stroke_lengths(Split(image, torch.zeros(1, dtype=torch.int64)))
    assert lengths.tolist() == [4, 1, 2]


def test_a_class_without_images_is_said():
    split = Split(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([3, 7]))
    figure = pictures.samples_per_class(split, split)
    assert "no images" in figure.get_suptitle()
    pyplot.close(figure)


def test_turning_there_and_back_and_by_nothing(mnist):
    images = mnist.test.images[:5]
    assert (rotated(images, 0.0).int() - images.int()).abs().max() <= 1
    back = rotated(rotated(images, 30.0), -30.0)
    assert (back.float() - images.float()).abs().mean() < 12
    assert (rotated(images, 30.0).float() - images.float()).abs().mean() > 20


def test_shifting_moves_by_whole_pixels(mnist):
    images = mnist.test.images[:5]
    assert torch.equal(shifted(images, 0), images)
    assert torch.equal(shifted(images, 3)[:, 3:, 3:], images[:, :25, :25])
    assert not shifted(images, 3)[:, :3].any()


def test_show_sends_the_figures_own_text(monkeypatch, found):
    sent = []
    monkeypatch.setattr(
        "utils.figures.display",
        lambda content, raw, metadata: sent.append((content, metadata)),
    )
    figure = plots.curves(found["1"])
    show(figure)
    ((content, metadata),) = sent
    assert metadata == {"image/png": {"alt": figure.alt}}
    drawn = Image.open(io.BytesIO(base64.b64decode(content["image/png"]))).convert("RGB")
    figure.savefig(exact := io.BytesIO(), bbox_inches="tight")
    apart = ImageChops.difference(drawn, Image.open(exact).convert("RGB"))
    assert max(ImageStat.Stat(apart).mean) < 1  # of 255 greys


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": {"learning_rate": -1}}, "recipe.learning_rate: input should be greater than 0"),
        ({"recipe": {"rate": 1}}, "recipe has no rate; it has"),
        ({"config": {"dropout": 2}}, "config: dropout must be in [0, 1), not 2"),
    ],
)
def test_try_it_says_a_bad_value_in_one_line(changes, line, capsys):
    lesson.try_it(4, **changes)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(line)


def test_an_interrupted_try_is_one_line(monkeypatch, small, capsys):
    def stop(row):
        raise KeyboardInterrupt

    monkeypatch.setattr("study.runs.load_mnist", lambda *_: small)
    monkeypatch.setattr("study.runs.epoch_line", stop)
    lesson.try_it(4, recipe={"batch_size": 100})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("interrupted 4-varied-")
