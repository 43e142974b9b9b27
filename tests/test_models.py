import dataclasses

import pytest
import torch
from torch.nn import functional as F

from models import EVERY_3X3, MODELS, NetworkConfig, build, changes
from utils.tables import hand_count

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
def test_parameter_count_is_exact_and_agrees_with_the_hand_formula(model, count):
    assert sum(p.numel() for p in build(model).parameters()) == count
    assert hand_count(MODELS[model]) == count


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
    assert set(changes(model)) == DECLARED[model]
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
    assert {name.rsplit(".", 1)[0] for name in lost} == {"late.1"}
    assert sum(lost[f"late.1.{kind}"].numel() for kind in ("weight", "bias")) == 20


def test_dropout_follows_every_3x3_convolution_but_the_last():
    rates = [m.p for m in build(9).modules() if hasattr(m, "p")]
    assert rates == [0.01] * 5 + [0.0]
    assert [m.p for m in build(4).modules() if hasattr(m, "p")] == [0.0] * 6


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MODELS[1].squeeze_1 = 3


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 3, 28, 28), (4, 1, 32, 32)])
def test_wrong_image_shape(shape):
    with pytest.raises(ValueError, match=r"expected \[N, 1, 28, 28\]"):
        build(1)(torch.zeros(shape))


def test_unknown_model_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown model 11; the models are 1, 2, 3.*10"):
        build(11)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "linear"}, "head must be"),
        ({"batch_norm": (7,)}, "batch_norm lists"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MODELS[1], **fields)


def test_a_config_of_ones_own_builds():
    own = NetworkConfig((8, 8), 8, (10, 12), 8, (8, 10), head="gap", batch_norm=EVERY_3X3)
    assert sum(p.numel() for p in build(own).parameters()) == hand_count(own) == 4_116
