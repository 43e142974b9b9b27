import dataclasses
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy
import pytest
import torch
from torch.nn import functional as F

from models import ACTIVATIONS, EVERY_3X3, MODELS, NetworkConfig, SeparableConfig, build
from study.records import count_parameters
from utils.data import ROOT
from utils.layers import layer_rows
from utils.recipes import changes

COUNTS = [75_408, 14_760, 9_446, 8_714, 8_694, 5_194, 7_598, 7_598, 7_598, 6_022]
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


@pytest.mark.parametrize(("model", "count"), list(zip(MODELS, COUNTS, strict=True)))
def test_parameter_count_is_exact_and_agrees_with_torchinfo_and_the_formula(model, count):
    assert sum(p.numel() for p in build(model).parameters()) == count
    rows = layer_rows(MODELS[model])
    assert sum(row.by_hand for row in rows) == sum(row.parameters for row in rows) == count


ALONE = """
import sys
import numpy, torch
import models
assert models.__file__.startswith(sys.argv[1]), models.__file__
assert not {"utils", "pydantic", "numba"} & set(sys.modules)
try:
    import utils
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"the project is in reach: {utils}")
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
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    weights = ROOT / "records" / "finals" / "9-final" / "seed-00.npz"
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path), str(weights), str(tmp_path / "images.npy")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    *counts, digits = run.stdout.splitlines()
    assert list(map(int, counts)) == COUNTS
    right = torch.tensor(list(map(int, digits.split()))) == mnist.test.labels[:50]
    assert right.sum() >= 49


@pytest.mark.parametrize("model", MODELS)
def test_output_is_log_probabilities_and_every_gradient_is_finite(model):
    torch.manual_seed(0)
    network = build(model)
    output = network(torch.randn(8, 1, 28, 28))
    assert output.shape == (8, 10)
    assert torch.allclose(output.exp().sum(1), torch.ones(8), atol=1e-5)
    F.nll_loss(output, torch.arange(8)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", DECLARED)
def test_the_declared_idea_changed_and_nothing_else_did(model):
    assert set(changes(MODELS[model - 1], MODELS[model])) == DECLARED[model]
    before, after = (build(m).state_dict() for m in (model - 1, model))
    channels = {"edges", "squeeze_1", "middle", "squeeze_2", "late"}
    if not DECLARED[model] & (channels | {"head"}):
        # Only batch norm or dropout differ: every convolution keeps name and shape.
        convolutions = [
            {name: t.shape for name, t in state.items() if t.dim() == 4}
            for state in (before, after)
        ]
        assert convolutions[0] == convolutions[1]


def test_model_5_loses_exactly_the_fifth_batch_norm():
    before, after = (build(m).state_dict() for m in (4, 5))
    lost = {name: tensor for name, tensor in before.items() if name not in after}
    assert set(after) <= set(before)
    assert {name.rsplit(".", 1)[0] for name in lost} == {"late.norm5"}
    assert sum(lost[f"late.norm5.{kind}"].numel() for kind in ("weight", "bias")) == 20


def test_the_layers_of_a_convolution_come_in_the_order_of_the_study():
    network = build(9)
    assert list(network.edges._modules) == [
        "conv1", "norm1", "relu1", "drop1", "conv2", "norm2", "relu2", "drop2"
    ]  # fmt: skip
    rates = {n: m.p for n, m in network.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert list(rates.values()) == [0.01] * 5
    assert not any("6" in name for name in rates)
    assert not any(isinstance(m, torch.nn.Dropout) for m in build(4).modules())


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MODELS[1].squeeze_1 = 3


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 3, 28, 28), (4, 1, 32, 32)])
def test_wrong_image_shape(shape):
    with pytest.raises(ValueError, match=r"expected \[N, 1, 28, 28\]"):
        build(1)(torch.zeros(shape))


@pytest.mark.parametrize("model", [True, "9", [], None, 11])
def test_an_unknown_model_lists_the_known_ones(model):
    with pytest.raises(ValueError, match=r"unknown model .*; the models are 1, 2, 3.*10"):
        build(model)


TWO, THREE = (f"a tuple of {number} whole numbers of" for number in (2, 3))
SEPARABLE = SeparableConfig((8, 8, 8))


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (MODELS[1], {"edges": (0, 0)}, rf"edges must be {TWO} 1 or more, not \(0, 0\)"),
        (MODELS[1], {"edges": (True, 8)}, rf"edges must be {TWO} 1 or more, not \(True, 8\)"),
        (MODELS[1], {"late": [8, 8]}, f"late must be {TWO} 1"),
        (MODELS[1], {"middle": 8}, f"middle must be {TWO} 1"),
        (MODELS[1], {"squeeze_1": True}, "squeeze_1 must be a whole number of 1 or more, not True"),
        (MODELS[1], {"squeeze_2": 8.0}, "squeeze_2 must be a whole number of 1 or more, not 8.0"),
        (MODELS[1], {"head": "linear"}, "head must be 'conv6x6' or 'gap', not 'linear'"),
        (
            MODELS[1],
            {"batch_norm": (7,)},
            r"batch_norm must be a tuple of some of 1 to 6, in order",
        ),
        (MODELS[1], {"batch_norm": (2, 1)}, "batch_norm must be"),  # the same network, one key
        (MODELS[1], {"batch_norm": (True,)}, "batch_norm must be"),
        (MODELS[1], {"batch_norm": 1}, "batch_norm must be"),
        (MODELS[1], {"dropout": float("nan")}, r"dropout must be in \[0, 1\), not nan"),
        (MODELS[1], {"dropout": "x"}, r"dropout must be in \[0, 1\), not 'x'"),
        (MODELS[1], {"activation": "tanh"}, "activation must be one of relu, silu, hardswish, not"),
        (
            MODELS[1],
            {"squeeze_excitation": -1},
            "squeeze_excitation must be a whole number of 0 or",
        ),
        (SEPARABLE, {"channels": (8, 8)}, rf"channels must be {THREE} 1 or more, not \(8, 8\)"),
        (SEPARABLE, {"channels": (8, 8, 0)}, "channels must be"),
        (SEPARABLE, {"blocks": (1, -1, 1)}, f"blocks must be {THREE} 0 or more"),
        (SEPARABLE, {"activation": ["relu"]}, "activation must be one of"),
        (SEPARABLE, {"channels": (8, 9, 9), "blocks": (1, 0, 1)}, "channels must be the same befo"),
    ],
)
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
    images = torch.randn(32, 1, 28, 28)
    labels = torch.arange(32) % 10
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
    with pytest.raises(ValueError, match=r"expected \[N, 1, 28, 28\]"):
        network(torch.zeros(4, 28, 28))


@pytest.mark.parametrize("inner_norm", [True, False])
def test_a_separable_network_has_the_parameters_of_its_formula(inner_norm):
    def block(i: int, o: int) -> int:
        return 9 * i + inner_norm * 2 * i + i * o + 2 * o

    config = SeparableConfig((5, 7, 11), (1, 2, 3), inner_norm=inner_norm)
    blocks = block(5, 5) + block(5, 7) + block(7, 7) + block(7, 11) + 2 * block(11, 11)
    assert count_parameters(config) == 9 * 5 + 2 * 5 + blocks + 10 * 11
    # As in the trials on a hold-out that this body comes from.
    assert count_parameters(SeparableConfig((16, 16, 16))) == 3_584


def test_with_skip_a_block_that_keeps_the_channels_adds_to_its_input():
    config = SeparableConfig((6, 6, 8), (1, 1, 2), skip=True)
    assert count_parameters(config) == count_parameters(replace(config, skip=False))
    network = build(config).eval()
    for block in (network.at_28[0], network.at_14[0], network.at_7[1]):
        x = torch.randn(2, block[0].in_channels, 9, 9)
        plain = torch.nn.Sequential(*block)(x)
        assert torch.equal(block(x), x + plain)
    assert type(network.at_7[0]) is torch.nn.Sequential  # 6 to 8 channels: nothing to add to


def test_a_config_of_ones_own_builds():
    own = NetworkConfig((8, 8), 8, (10, 12), 8, (8, 10), head="gap", batch_norm=EVERY_3X3)
    assert sum(p.numel() for p in build(own).parameters()) == 4_116
