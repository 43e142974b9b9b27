"""Layers that compute what torch's own compute, in fewer passes over memory.

On a CPU they run the compiled kernels of `fast.kernels` in channels_last memory, elsewhere
torch's own. `tests/test_fast.py` proves each equal to its torch counterpart in forward values,
gradients and running statistics. `fast.fuse` puts them into a network.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fast import kernels, spatial
from fast.kernels import HARDSWISH, IDENTITY, RELU, SILU


def _runs_kernels(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _memory(x: Tensor, *shape: int) -> np.ndarray:
    """The memory of a channels_last tensor [N, C, H, W] in another shape; bfloat16 as its bits."""
    x = x.detach().view(torch.uint16) if x.dtype == torch.bfloat16 else x.detach()
    return x.permute(0, 2, 3, 1).view(shape).numpy()


def _matrix(x: Tensor) -> np.ndarray:
    """The same memory as [rows, lanes]; see `fast.kernels`."""
    lanes = math.gcd(x.numel() // x.shape[1], kernels.TILE) * x.shape[1]
    return _memory(x, x.numel() // lanes, lanes)


def _vectors(*tensors: Tensor) -> list[np.ndarray]:
    """Per-channel numbers [C] as arrays of the same memory."""
    return [tensor.detach().numpy() for tensor in tensors]


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def _draw_seed(p: float) -> int:
    """A seed of a kernel's random numbers, from torch's generator; 0 where none are needed."""
    return int(torch.randint(2**63 - 1, ())) if p > 0 else 0


class _ReLUDropoutFunction(torch.autograd.Function):
    """ReLU and dropout in one pass; "output == 0" is the backward mask of both."""

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        x = _channels_last(x)
        y = torch.empty_like(x)
        kernels.relu_dropout(_matrix(x), p, _draw_seed(p), _matrix(y))
        ctx.save_for_backward(y)
        ctx.p = p
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (y,) = ctx.saved_tensors
        grad, dx = _channels_last(grad), torch.empty_like(y)
        kernels.relu_dropout_backward(_matrix(grad), _matrix(y), ctx.p, _matrix(dx))
        return dx, None


class ReLUDropout(nn.Module):
    """ReLU followed by element-wise dropout (inverted: kept elements are scaled by 1 / (1 - p)).

    While training, each element is zeroed with probability `p`, in [0, 1).
    """

    def __init__(self, p: float = 0.0):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if self.training and _runs_kernels(x):
            return _ReLUDropoutFunction.apply(x, self.p)
        return F.dropout(F.relu(x), self.p, self.training)


class _BatchNormActFunction(torch.autograd.Function):
    """Batch norm over the batch, activation, dropout: two passes forward, two backward."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, layer: "BatchNormAct2d") -> Tensor:
        x = _channels_last(x)
        y = torch.empty_like(x)
        vectors = _vectors(weight, bias, layer.running_mean, layer.running_var)
        settings = layer.momentum, layer.eps, layer.kind, layer.p, _draw_seed(layer.p)
        ctx.mean, ctx.inverse = kernels.batch_norm_act(_matrix(x), *vectors, *settings, _matrix(y))
        ctx.save_for_backward(x, y, weight, bias)
        ctx.kind, ctx.p = layer.kind, layer.p
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, y, weight, bias = ctx.saved_tensors
        grad, dx = _channels_last(grad), torch.empty_like(x)
        arrays = *map(_matrix, (grad, y, x)), *_vectors(weight, bias), ctx.mean, ctx.inverse
        d_weight, d_bias = kernels.batch_norm_act_backward(*arrays, ctx.kind, ctx.p, _matrix(dx))
        return dx, torch.from_numpy(d_weight).float(), torch.from_numpy(d_bias).float(), None


KINDS = {nn.ReLU: RELU, nn.SiLU: SILU, nn.Hardswish: HARDSWISH, nn.Identity: IDENTITY}


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm, an activation and element-wise dropout in one layer (the name is timm's).

    Args:
        channels: number of channels C.
        p: probability of zeroing an element while training, in [0, 1).
        activation: a layer of one of the types in `KINDS`.
    """

    def __init__(self, channels: int, p: float = 0.0, activation: nn.Module | None = None):
        super().__init__(channels)
        self.p, self.activation = p, activation or nn.ReLU()
        self.kind = KINDS[type(self.activation)]

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, p: float, activation: nn.Module) -> "BatchNormAct2d":
        """A layer with the very parameters and buffers of `norm`."""
        with torch.device("meta"):
            layer = cls(norm.num_features, p, activation)
        layer.eps, layer.momentum, layer.training = norm.eps, norm.momentum, norm.training
        layer.affine = norm.affine
        layer._parameters.update(norm._parameters)
        layer._buffers.update(norm._buffers)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if _runs_kernels(x) and self.running_mean.dtype == torch.float32:
            if not self.training and not torch.is_grad_enabled():
                return self._evaluate(x)
            if self.training and x.numel() > x.shape[1]:  # torch refuses one value per channel
                self.num_batches_tracked.add_(1)  # += would go through Module.__setattr__
                return _BatchNormActFunction.apply(x, *self._affine(), self)
        return F.dropout(self.activation(super().forward(x)), self.p, self.training)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Factor and summand of each channel, 1 and 0 for a norm without."""
        if self.affine:
            return self.weight, self.bias
        return torch.ones_like(self.running_mean), torch.zeros_like(self.running_mean)

    def _evaluate(self, x: Tensor) -> Tensor:
        x = _channels_last(x)
        y = torch.empty_like(x)
        vectors = _vectors(*self._affine(), self.running_mean, self.running_var)
        kernels.batch_norm_act_evaluation(_matrix(x), *vectors, self.eps, self.kind, _matrix(y))
        return y


class _MaxPoolFunction(torch.autograd.Function):
    """2x2 max pooling that remembers, in a byte each, which of the four was the largest."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = _channels_last(x)
        n, c, h, w = x.shape
        y, rows = _empty(x, n, c, h // 2, w // 2), n * h // 2
        ctx.chosen = np.empty((rows, w // 2, c), np.uint8)
        spatial.max_pool(_memory(x, rows, 2, w // 2, 2, c), _memory(y, rows, w // 2, c), ctx.chosen)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        n, c, h, w = grad.shape
        grad = _channels_last(grad)
        dx = _empty(grad, n, c, 2 * h, 2 * w)
        wide = _memory(dx, n * h, 2, w, 2, c)
        spatial.max_pool_backward(_memory(grad, n * h, w, c), ctx.chosen, wide)
        return dx


class MaxPool2x2(nn.MaxPool2d):
    """Max pooling over 2x2 pixels, which halves height and width; odd ones are left to torch."""

    def __init__(self):
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H / 2, W / 2]."""
        if _runs_kernels(x) and x.shape[2] % 2 == x.shape[3] % 2 == 0:
            return _MaxPoolFunction.apply(x)
        return super().forward(x)
