import math
import shutil
from dataclasses import replace

import numpy
import pytest
import torch
from torch.nn import functional as F

from models import ACTIVATIONS, MODELS, SeparableConfig, build
from study.published import PUBLISHED
from study.records import count_parameters
from tests.conftest import python
from utils.data import ROOT
from utils.recipes import changes

# What each model declares to change against its predecessor, and nothing else.
DECLARED = {
    2: {"edges", "squeeze_1", "middle", "squeeze_2", "late"},
    3: {"edges", "squeeze_2", "late"},
    4: {"middle", "batch_norm"},
    5: {"batch_norm", "dropout"},
    6: {"head"},
    7: {"middle", "late", "batch_norm"},
    8: set(),
    9: set(),
    10: {"middle", "squeeze_2", "late"},
}


ALONE = """
import importlib.util, sys
import numpy, torch
import models
assert models.__file__.startswith(sys.argv[1]), models.__file__
assert importlib.util.find_spec("utils") is None, "the project is in reach"
assert not {"pydantic", "numba"} & set(sys.modules)
for model in models.MODELS:
    print(sum(p.numel() for p in models.build(model).parameters()))
arrays = numpy.load(sys.argv[2])
network = models.build(9)
network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
images = (torch.from_numpy(numpy.load(sys.argv[3])).unsqueeze(1) / 255 - 0.1307) / 0.3081
with torch.no_grad():
    print(*network.eval()(images).argmax(1).tolist())
"""


def test_the_file_alone_builds_all_ten_and_loads_committed_weights(tmp_path, mnist):
    shutil.copy(ROOT / "models.py", tmp_path)
    numpy.save(tmp_path / "images.npy", mnist.test.images[:50].numpy())
    weights = ROOT / "records" / "finals" / "9-final" / "seed-00.npz"
    run = python("-E", "-c", ALONE, str(tmp_path), str(weights), "images.npy", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    *counts, digits = run.stdout.splitlines()
    assert list(map(int, counts)) == [published.parameters for published in PUBLISHED.values()]
    correct = torch.tensor(list(map(int, digits.split()))) == mnist.test.labels[:50]
    assert correct.sum() >= 49


@pytest.mark.parametrize("model", MODELS)
def test_output_is_log_probabilities_and_every_gradient_is_finite(model):
    torch.manual_seed(0)
    network = build(model)
    output = network(torch.randn(8, 1, 28, 28))
    assert output.shape == (8, 10)
    assert torch.allclose(output.exp().sum(1), torch.ones(8), atol=1e-5)
    F.nll_loss(output, torch.arange(8)).backward()
    for name, parameter in network.named_parameters():
        assert 0 < parameter.grad.abs().sum() < math.inf, name


@pytest.mark.parametrize("model", DECLARED)
def test_the_declared_idea_changed_and_nothing_else_did(model):
    assert set(changes(MODELS[model - 1], MODELS[model])) == DECLARED[model]
    before, after = (build(m).state_dict() for m in (model - 1, model))
    if DECLARED[model] <= {"batch_norm", "dropout"}:  # every convolution keeps name and shape
        shapes = [{n: t.shape for n, t in s.items() if t.dim() == 4} for s in (before, after)]
        assert shapes[0] == shapes[1]
    if model == 5:
        assert set(after) < set(before)
        lost = {name.rpartition(".")[0] for name in set(before) - set(after)}
        assert lost == {"late.norm5"}


SEPARABLE = SeparableConfig((8, 8, 8))


@pytest.mark.parametrize("network", [1, SEPARABLE])
@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 3, 28, 28), (4, 1, 32, 32)])
def test_wrong_image_shape(network, shape):
    with pytest.raises(ValueError, match=r"expected \[N, 1, 28, 28\]"):
        build(network)(torch.zeros(shape))


@pytest.mark.parametrize("model", [True, "9", [], None, 11])
def test_an_unknown_model_lists_the_known_ones(model):
    with pytest.raises(ValueError, match=r"unknown model .*; the models are 1, 2, 3.*10"):
        build(model)


FIRST = MODELS[1]
BAD = [  # what each check says; test_recipes.py tries any value of any field
    (FIRST, {"edges": (0, 0)}, r"edges must be a tuple of 2 whole numbers of 1 or more, not \(0, "),
    (FIRST, {"head": "linear"}, "head must be 'conv6x6' or 'gap', not 'linear'"),
    (FIRST, {"batch_norm": (2, 1)}, "batch_norm must be a tuple of some of 1 to 6, in order, not"),
    (FIRST, {"dropout": float("nan")}, r"dropout must be in \[0, 1\), not nan"),
    (FIRST, {"activation": "tanh"}, "activation must be one of relu, silu, hardswish, not 'tanh'"),
    (SEPARABLE, {"channels": (8, 8)}, "channels must be a tuple of 3 whole numbers of 1 or more"),
    (SEPARABLE, {"channels": (8, 9, 9), "blocks": (1, 0, 1)}, "channels must be the same before"),
]


@pytest.mark.parametrize(("config", "fields", "message"), BAD)
def test_bad_config(config, fields, message):
    with pytest.raises(ValueError, match=f"^config: {message}") as error:
        replace(config, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "config",
    [
        replace(MODELS[10], squeeze_excitation=3),
        SeparableConfig((8, 10, 12), (1, 2, 1)),
        SeparableConfig((10, 10, 10), (1, 2, 1), skip=True),
    ],
)
def test_other_activations_gates_and_the_second_body_learn(config, activation):
    torch.manual_seed(0)
    network = build(replace(config, activation=activation))
    kinds = [type(layer) for layer in network.modules() if type(layer) in ACTIVATIONS.values()]
    assert kinds.count(ACTIVATIONS[activation]) >= 5
    images, labels = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = F.nll_loss(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1.5
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_with_skip_a_block_that_keeps_the_channels_adds_to_its_input():
    config = SeparableConfig((6, 6, 8), (1, 1, 2), skip=True)
    assert count_parameters(config) == count_parameters(replace(config, skip=False))
    network = build(config).eval()
    for block in (network.at_28[0], network.at_14[0], network.at_7[1]):
        x = torch.randn(2, block[0].in_channels, 9, 9)
        plain = torch.nn.Sequential(*block)(x)
        assert torch.equal(block(x), x + plain)
    assert type(network.at_7[0]) is torch.nn.Sequential  # 6 to 8 channels: nothing to add to
