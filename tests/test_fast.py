import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fast
from fast import kernels
from fast.layers import BatchNormAct2d, MaxPool2x2, ReLUDropout
from models import MODELS, SeparableConfig, build
from utils.training import predict

FORMATS = [torch.contiguous_format, torch.channels_last]


def batch(memory_format, dtype=torch.float32):
    torch.manual_seed(1)
    x = torch.randn(32, 12, 14, 14).to(dtype).contiguous(memory_format=memory_format)
    return x.requires_grad_(), torch.randn(32, 12, 14, 14).to(dtype)


def norms(p: float, kind=nn.ReLU) -> tuple[BatchNormAct2d, nn.BatchNorm2d]:
    """Our layer and torch's batch norm with the same weights."""
    ours, theirs = BatchNormAct2d(12, p, kind()), nn.BatchNorm2d(12)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 1.5)
        ours.bias.uniform_(-0.5, 0.5)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(y, x, layer, grad):
    y.backward(grad)
    return [x.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", [nn.ReLU, nn.SiLU, nn.Hardswish, nn.Identity])
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_batch_norm_act_equals_torch(memory_format, kind, p):
    x, grad = batch(memory_format)
    x = (x.detach() * 4).requires_grad_()  # beyond the bends of hard-swish
    x2 = x.detach().clone().requires_grad_()
    ours, theirs = norms(p, kind)
    y = ours(x)
    # The drop mask is ours to draw; where ours dropped, the reference drops too.
    reference = kind()(theirs(x2))
    mask = ~((y == 0) & (reference != 0)) if p else torch.ones_like(y, dtype=torch.bool)
    share = 1 - mask[reference != 0].float().mean()
    assert abs(share - p) < 0.02
    reference = reference * mask / (1 - p)
    torch.testing.assert_close(y, reference, rtol=1.3e-6, atol=1e-5)
    got, expected = gradients(y, x, ours, grad), gradients(reference, x2, theirs, grad)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    for layer in (ours, theirs):
        layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x2), kind()(theirs(x2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("images", [1, 3, 32])
def test_batch_norm_act_in_bfloat16_is_float64_rounded_once(memory_format, images):
    x, grad = (t[:images] for t in batch(memory_format, torch.bfloat16))
    x = (x.detach() + 50).contiguous(memory_format=memory_format).requires_grad_()  # far from 0
    x2 = x.detach().double().requires_grad_()
    ours, theirs = norms(0.0)
    theirs.double()
    y, reference = ours(x), F.relu(theirs(x2))
    assert y.dtype == torch.bfloat16
    got = gradients(y, x, ours, grad)
    # Where rounding moved an output to exactly 0, its gradient is cut; the reference follows.
    expected = gradients(reference * (y > 0), x2, theirs, grad.double())
    torch.testing.assert_close(y.double(), reference, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(got[0].double(), expected[0], rtol=2**-8, atol=1e-6)
    for ours_, theirs_ in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours_.double(), theirs_, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.running_mean.double(), theirs.running_mean)
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=1e-4, atol=0)
    assert ours.num_batches_tracked == 1


def test_the_compiled_sigmoid_is_torchs_from_end_to_end():
    z = torch.linspace(-120, 120, 100_001)
    out = np.empty(len(z), np.float32)
    kernels._activated(z.numpy(), kernels.SILU, np.float32(1), out)
    expected = F.silu(z.double())
    torch.testing.assert_close(torch.from_numpy(out).double(), expected, rtol=4e-6, atol=1e-30)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_relu_dropout_equals_torch(memory_format):
    x, grad = batch(memory_format)
    x2 = x.detach().clone().requires_grad_()
    y = ReLUDropout(0.3)(x)
    reference = F.relu(x2)
    reference = reference * ~((y == 0) & (reference > 0)) / 0.7
    torch.testing.assert_close(y, reference)
    y.backward(grad)
    reference.backward(grad)
    torch.testing.assert_close(x.grad, x2.grad)


@pytest.mark.parametrize("p", [0.01, 0.2])
def test_each_element_is_dropped_independently_with_probability_p(p):
    torch.manual_seed(2)
    ones = torch.ones(64, 10, 28, 28)
    trials = 40
    dropped = torch.stack([ReLUDropout(p)(ones) == 0 for _ in range(trials)]).double()
    n = dropped.numel()
    # The share dropped, within five standard errors.
    assert abs(dropped.mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    # Independence between neighbours: P(both) = p * p.
    both = (dropped[..., 1:] * dropped[..., :-1]).mean()
    assert abs(both - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / n)
    # And between trials: the count per element is binomial, so its variance is trials p (1 - p).
    variance = dropped.sum(0).var().item()
    assert variance == pytest.approx(trials * p * (1 - p), rel=0.03)


@pytest.mark.parametrize("size", [(14, 14), (13, 14), (14, 13), (7, 7)])  # odd: left to torch
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_max_pool_equals_torch(memory_format, dtype, size):
    x = batch(memory_format, dtype)[0].detach()[..., : size[0], : size[1]]
    x = (x * 2).round().requires_grad_()  # many ties, some of them negative
    x2 = x.detach().clone().requires_grad_()
    y, reference = MaxPool2x2()(x), F.max_pool2d(x2, 2)
    assert torch.equal(y, reference)
    grad = torch.randn(y.shape).to(dtype)
    y.backward(grad)
    reference.backward(grad)
    assert torch.equal(x.grad, x2.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [BatchNormAct2d(12), ReLUDropout(), MaxPool2x2()])
def test_nan_is_passed_on(layer, dtype):
    """A diverged run must reach its loss as NaN, or nobody would notice."""
    layer.train()
    x = torch.ones(2, 12, 4, 4, dtype=dtype)
    x[1, 5, 2, 2] = float("nan")
    assert layer(x).isnan().any()


# Each path would draw its own dropout.
CONFIGS = [replace(config, dropout=0.0) for config in MODELS.values()]
CONFIGS += [SeparableConfig((12, 12, 14)), SeparableConfig((8, 8, 8), inner_norm=False, skip=True)]
CONFIGS += [SeparableConfig((8, 8, 8), activation="hardswish", inner_affine=False)]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_fused_network_computes_the_same(config, mnist):
    images = (mnist.test.images[:40].unsqueeze(1).float() / 255 - 0.13) / 0.31
    torch.manual_seed(0)
    plain = build(config)
    fused = fast.fuse(copy.deepcopy(plain))
    outputs = [network.train()(images) for network in (fused, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    for output in outputs:
        F.nll_loss(output, mnist.test.labels[:40]).backward()
    for (name, got), expected in zip(fused.named_parameters(), plain.parameters(), strict=True):
        # By norm, to a few percent: where a convolution rounds otherwise (channels_last memory), a
        # value crosses ReLU's corner, or another of four alike is the largest, on some processors.
        # A norm that another follows has summands without effect: their gradient is 0 but for that.
        difference = (got.grad - expected.grad).norm() / (expected.grad.norm() + 1e-4)
        assert difference < 0.05, f"{name}: {difference:.1e}"
    for network in (fused, plain):
        torch.optim.SGD(network.parameters(), 0.1).step()
    assert list(fused.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    evaluated = [predict(net, mnist.test.images[:40], (0.13, 0.31)) for net in (fused, plain)]
    torch.testing.assert_close(*evaluated, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_fuse_leaves_none_of_torchs_own_layers_but_convolutions(model):
    plain = build(model)
    parameters = list(plain.parameters())
    drops = sum(isinstance(layer, nn.Dropout) for layer in plain.modules())
    network = fast.fuse(plain)
    assert network is plain
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    kinds = {type(layer) for stage in network.children() for layer in stage.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.Dropout, nn.MaxPool2d}
    assert type(network.pool) is MaxPool2x2
    compiled = [m for m in network.modules() if isinstance(m, BatchNormAct2d | ReLUDropout)]
    p = MODELS[model].dropout
    assert all(type(m.activation) is nn.ReLU for m in compiled if isinstance(m, BatchNormAct2d))
    # Two of the eight follow the squeezes, one the last 3x3 convolution.
    assert [layer.p for layer in compiled] == [p, p, 0, p, p, 0, p, 0]
    assert drops == sum(layer.p > 0 for layer in compiled)


def test_a_batch_norm_with_no_activation_after_it_gets_none():
    stage = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))
    fast.fuse(stage)
    kinds = [ReLUDropout, BatchNormAct2d, nn.Dropout, BatchNormAct2d]
    assert [type(layer) for layer in stage] == kinds
    assert type(stage[1].activation) is type(stage[3].activation) is nn.Identity
