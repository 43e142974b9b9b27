"""Layers that compute what torch's own compute, in fewer passes over memory.

At ten to sixteen channels a convolution is so cheap that a training step on a CPU is mostly memory
traffic: batch norm, ReLU and dropout each read and write the whole tensor again. The layers here
fuse those passes on the CPU; elsewhere torch's own kernels run. `tests/test_layers.py` proves each
equal to its torch counterpart in forward values, gradients and running statistics.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ReLUDropoutFunction(torch.autograd.Function):
    """ReLU, then zero a random share `p` of the elements; nothing is rescaled here.

    A dropped element of the output is 0 and so is a clipped one, so that "output > 0" is the
    backward mask of both: dropout costs no pass of its own in the backward, and no stored mask.
    """

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        y = x.clamp_min(0)
        if p > 0:
            _as_flat_memory(y).index_fill_(0, _dropped_positions(y.numel(), p), 0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, y, 0), None


def _as_flat_memory(x: Tensor) -> Tensor:
    """A 1-D view of a dense NCHW or channels_last tensor, in the order of its memory."""
    return x.view(-1) if x.is_contiguous() else x.permute(0, 2, 3, 1).view(-1)


def _dropped_positions(elements: int, p: float) -> Tensor:
    """Positions to drop so that each of `elements` is dropped independently with probability `p`.

    Poisson thinning: a Poisson number of uniform positions, repeats allowed, with mean
    -n log(1 - p), hits each position independently with probability exactly p. It draws about
    n p random numbers instead of n: at p = 0.01 a hundredth of nn.Dropout's work.
    """
    mean = torch.tensor(-elements * math.log1p(-p), dtype=torch.float64)
    return torch.randint(elements, (int(torch.poisson(mean)),))


class ReLUDropout(nn.Module):
    """ReLU followed by element-wise dropout (inverted: kept elements are scaled by 1 / (1 - p)).

    Args:
        p: probability of zeroing an element while training, in [0, 1).
    """

    def __init__(self, p: float = 0.0):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return F.dropout(F.relu(x), self.p, self.training)
        return _ReLUDropoutFunction.apply(x * (1 / (1 - self.p)), self.p)

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"p={self.p}"


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm, ReLU and element-wise dropout in one layer (the name is timm's).

    Dropout's factor 1 / (1 - p) is folded into batch norm's weight and bias, which commutes with
    ReLU because it is positive, and so costs no pass over the tensor.

    Args:
        channels: number of channels C.
        p: probability of zeroing an element while training, in [0, 1).
    """

    def __init__(self, channels: int, p: float = 0.0):
        super().__init__(channels)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        if not self.training or x.device.type != "cpu":
            return F.dropout(F.relu(super().forward(x)), self.p, self.training)
        keep = 1 - self.p
        x = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight / keep,
            self.bias / keep,
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        return _ReLUDropoutFunction.apply(x, self.p)

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"{self.num_features}, p={self.p}"
