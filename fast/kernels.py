"""Compiled passes over memory for the layers of a CPU run.

At ten to sixteen channels a convolution is so cheap that a training step on a CPU is mostly memory
traffic, and PyTorch's kernels walk a channels_last tensor ten channels at a time, too short for the
processor's vectors. Here an activation is seen as a matrix [rows, lanes] whose rows hold several
pixels, `lanes` being a multiple of the channels C, and per-channel numbers are repeated along it:
the inner loop is then long, and Numba turns it into vector instructions. The first call compiles a
kernel (a second or so), later processes load it from `__pycache__`.

bfloat16, which NumPy lacks, travels as uint16: the upper half of a float32. All arithmetic is
float32. One thread computes, so the sums do not depend on the number of threads.
"""

import contextlib
import hashlib
import pickle

import numpy as np
from numba import config, njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import overload

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

RELU, SILU, HARDSWISH, IDENTITY = range(4)  # activations after a batch norm
TILE = 64  # pixels per row of the matrix, where that divides their number
BLOCK = 32  # rows summed in float32 before their sum is added up in float64


class Sealed(IndexDataCacheFile):
    """Numba's files of compiled code, each with a digest at its end, which pickle passes over."""

    def _dump(self, obj) -> bytes:
        content = super()._dump(obj)
        return content + hashlib.sha256(content).digest()

    def _load_data(self, name):
        with open(self._data_path(name), "rb") as file:
            content = file.read()
        if hashlib.sha256(content[:-32]).digest() != content[-32:]:
            raise ValueError("changed since it was written")
        return pickle.loads(content)


class Cache(FunctionCache):
    """Numba's cache; what is damaged there is compiled anew."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file.__class__ = Sealed

    def load_overload(self, signature, context):
        """Compiled code from the disk, or None."""
        try:
            return super().load_overload(signature, context)
        except Exception:  # a damaged file makes pickle raise anything
            self.flush()
            return None


def compiled(function):
    """Compile on first use; keep the result on disk where there is a place to write it."""
    made = njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # a read-only checkout and no home
        made._cache = Cache(function)
    return made


def widen(stored):
    """A stored value, float32 or the bits of a bfloat16, as float32."""


@overload(widen)
def _widen_(stored):
    if isinstance(stored, types.Float):
        return lambda stored: stored
    return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


def narrow(value, like):
    """A float32 as it is stored in an array of `like`'s type, rounded to nearest even."""


@overload(narrow)
def _narrow_(value, like):
    if isinstance(like, types.Float):
        return lambda value, like: value

    def narrow(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return narrow


@compiled
def _drop(y, p, seed):
    """Zero each element of the 1-D `y` with probability p, independently.

    The gaps between dropped elements are geometric, so that only n p random numbers are drawn; they
    come from SplitMix64 (Steele, Lea and Flood, 2014).
    """
    scale = 1 / np.log1p(-p)
    state = np.uint64(seed)
    position = -1
    while True:
        state += np.uint64(0x9E3779B97F4A7C15)
        bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        uniform = (np.float64(bits >> np.uint64(11)) + 1) * 2.0**-53  # in (0, 1]
        gap = np.log(uniform) * scale
        if gap >= y.size - position - 1:
            return
        position += 1 + np.int64(gap)
        y[position] = 0


@compiled
def _tiled(per_channel, count):
    """[C] -> [count] by repetition, float32."""
    out = np.empty(count, np.float32)
    for start in range(0, count, per_channel.size):
        for channel in range(per_channel.size):
            out[start + channel] = per_channel[channel]
    return out


@compiled
def _sigmoid(z):
    """1 / (1 + exp(-z)) in float32, of what vectors can do, so that a loop over it becomes some.

    exp is a power of 2 times a polynomial (Taylor's) for the fraction that is left.
    """
    magic = np.float32(1.5 * 2**23)  # added, it rounds to a whole number, which its low bits hold
    least, most = np.float32(-80), np.float32(80)
    z = least if z < least else z
    z = most if z > most else z
    rounded = magic - z * np.float32(1.442695040888963)
    f = -z - (rounded - magic) * np.float32(0.6931471805599453)
    power = np.float32(1 / 720)
    power = power * f + np.float32(1 / 120)
    power = power * f + np.float32(1 / 24)
    power = power * f + np.float32(1 / 6)
    power = power * f + np.float32(1 / 2)
    power = power * f + np.float32(1)
    power = power * f + np.float32(1)
    bits = np.float32(rounded).view(np.uint32) + np.uint32(127)
    scale = np.uint32(bits << np.uint32(23)).view(np.float32)
    return np.float32(1) / (np.float32(1) + power * scale)


@compiled
def _activated(z, kind, scale, out):
    """Fill out = scale * activation(z), all [lanes] in float32; NaN stays NaN."""
    zero, one, half, sixth = np.float32(0), np.float32(1), np.float32(0.5), np.float32(1 / 6)
    if kind == RELU:
        for lane in range(z.size):
            out[lane] = zero if z[lane] <= zero else z[lane]
    elif kind == SILU:
        for lane in range(z.size):
            out[lane] = z[lane] * _sigmoid(z[lane]) * scale
    elif kind == HARDSWISH:
        for lane in range(z.size):
            out[lane] = z[lane] * min(max(z[lane] * sixth + half, zero), one) * scale
    else:
        for lane in range(z.size):
            out[lane] = z[lane] * scale


@compiled
def _slopes(z, kind, scale, out):
    """Multiply out [lanes] by scale * activation'(z), of all but ReLU, whose mask is y == 0."""
    zero, one, half, third = np.float32(0), np.float32(1), np.float32(0.5), np.float32(1 / 3)
    if kind == SILU:
        for lane in range(z.size):
            s = _sigmoid(z[lane])
            out[lane] *= s * (one + z[lane] * (one - s)) * scale
    elif kind == HARDSWISH:
        for lane in range(z.size):
            slope = z[lane] * third + half
            slope = zero if z[lane] <= np.float32(-3) else slope
            out[lane] *= (one if z[lane] >= np.float32(3) else slope) * scale
    else:
        for lane in range(z.size):
            out[lane] *= scale


@compiled
def _affine_act(x, factor, summand, kind, scale, y):
    """Fill y = scale * activation(factor x + summand), factor and summand per channel."""
    lanes_ = x.shape[1]
    factors, summands = _tiled(factor, lanes_), _tiled(summand, lanes_)
    z, out = np.empty(lanes_, np.float32), np.empty(lanes_, np.float32)
    for row in range(x.shape[0]):
        for lane in range(lanes_):
            z[lane] = factors[lane] * widen(x[row, lane]) + summands[lane]
        _activated(z, kind, scale, out)  # not in place: vectors ask for memory that is apart
        for lane in range(lanes_):
            y[row, lane] = narrow(out[lane], x[row, lane])


@compiled
def relu_dropout(x, p, seed, y):
    """Fill y = dropout(ReLU(x)), all [rows, lanes]; NaN stays NaN."""
    _affine_act(x, np.full(1, 1 / (1 - p)), np.zeros(1), RELU, np.float32(1), y)
    if p > 0:
        _drop(y.reshape(-1), p, seed)


@compiled
def relu_dropout_backward(grad, y, p, dx):
    """The gradient of `relu_dropout`: what it clipped or dropped is 0 in y."""
    scale = np.float32(1 / (1 - p))
    zero = np.float32(0)
    for row in range(y.shape[0]):
        for lane in range(y.shape[1]):
            value = widen(grad[row, lane]) * scale
            dx[row, lane] = narrow(zero if y[row, lane] == 0 else value, y[row, lane])


@compiled
def _flush(per_lane, sums):
    """Add the float32 sums of a few rows, [lanes], to the channels' float64 sums [C]; reset."""
    for start in range(0, per_lane.size, sums.size):
        for channel in range(sums.size):
            sums[channel] += per_lane[start + channel]
    per_lane[:] = 0


@compiled
def _moments(x, channels):
    """Mean and biased variance of each channel, by sums around each channel's first value.

    A channel's mean may be large beside its deviation; sums around a typical value keep float32
    accurate where sums around zero would cancel.
    """
    lanes_ = x.shape[1]
    shift = np.empty(channels, np.float32)
    for channel in range(channels):
        shift[channel] = widen(x[0, channel])
    origin = _tiled(shift, lanes_)
    first, second = np.zeros(lanes_, np.float32), np.zeros(lanes_, np.float32)
    offset, variance = np.zeros(channels), np.zeros(channels)
    for start in range(0, x.shape[0], BLOCK):
        for row in range(start, min(start + BLOCK, x.shape[0])):
            for lane in range(lanes_):
                value = widen(x[row, lane]) - origin[lane]
                first[lane] += value
                second[lane] += value * value
        _flush(first, offset)
        _flush(second, variance)
    pixels = x.size // channels
    offset /= pixels
    variance = variance / pixels - offset * offset
    return shift + offset, np.maximum(variance, 0)


@compiled
def _scales(kind, p):
    """Dropout's 1 / (1 - p) before and after the activation: ReLU alone commutes with it."""
    return (1 - p, np.float32(1)) if kind == RELU else (1.0, np.float32(1 / (1 - p)))


@compiled
def batch_norm_act(x, weight, bias, running_mean, running_var, momentum, eps, kind, p, seed, y):
    """Fill y = dropout(activation(batch norm(x))).

    x and y are [rows, lanes], all else [C] or a number. The running statistics are moved, too.
    Returns mean and 1 / sqrt(variance + eps), [C] in float64.
    """
    mean, variance = _moments(x, weight.size)
    inverse = 1 / np.sqrt(variance + eps)
    pixels = x.size // weight.size
    unbiased = variance * pixels / (pixels - 1)
    for c in range(weight.size):
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (unbiased[c] - running_var[c])
    before, after = _scales(kind, p)
    factor = weight * inverse / before
    _affine_act(x, factor, bias / before - factor * mean, kind, after, y)
    if p > 0:
        _drop(y.reshape(-1), p, seed)
    return mean, inverse


@compiled
def batch_norm_act_evaluation(x, weight, bias, mean, variance, eps, kind, y):
    """The same with given statistics and without dropout."""
    factor = weight / np.sqrt(variance + eps)
    _affine_act(x, factor, bias - factor * mean, kind, np.float32(1), y)


@compiled
def _passed(grad, y, x, factors, summands, kind, scale, dropped, out):
    """Fill out [lanes] with the gradient before the activation.

    What ReLU clipped is 0 in y, and so is what was `dropped`, if anything was.
    """
    zero = np.float32(0)
    if kind == RELU or dropped:
        for lane in range(out.size):
            out[lane] = zero if y[lane] == 0 else widen(grad[lane])
    else:
        for lane in range(out.size):
            out[lane] = widen(grad[lane])
    if kind != RELU and not (kind == IDENTITY and scale == 1):
        z = np.empty(out.size, np.float32)
        for lane in range(out.size):
            z[lane] = factors[lane] * widen(x[lane]) + summands[lane]
        _slopes(z, kind, scale, out)


@compiled
def batch_norm_act_backward(grad, y, x, weight, bias, mean, inverse, kind, p, dx):
    """The gradient of `batch_norm_act`; fills dx and returns those of weight and bias, [C].

    Source: Ioffe and Szegedy, 2015, section 3, with the activation's slope recomputed from x.
    """
    channels, lanes_ = weight.size, x.shape[1]
    means = _tiled(mean, lanes_)
    before, after = _scales(kind, p)
    factor = weight * inverse / before
    factors, summands = _tiled(factor, lanes_), _tiled(bias / before - factor * mean, lanes_)
    # What is dear to compute twice is kept from the first loop for the second.
    dear = kind in (SILU, HARDSWISH)
    kept = np.empty((x.shape[0] if dear else 1, lanes_), np.float32)
    first, second = np.zeros(lanes_, np.float32), np.zeros(lanes_, np.float32)
    d_bias, d_weight = np.zeros(channels), np.zeros(channels)
    for start in range(0, x.shape[0], BLOCK):
        for row in range(start, min(start + BLOCK, x.shape[0])):
            passed = kept[row if dear else 0]
            _passed(grad[row], y[row], x[row], factors, summands, kind, after, p > 0, passed)
            for lane in range(lanes_):
                first[lane] += passed[lane]
                second[lane] += passed[lane] * (widen(x[row, lane]) - means[lane])
        _flush(first, d_bias)
        _flush(second, d_weight)
    d_bias /= before
    d_weight *= inverse / before
    # dx = weight inverse (passed / before - d_bias / n - normalised d_weight / n)
    pixels = x.size // channels
    of_grad = _tiled(weight * inverse / before, lanes_)
    of_x = _tiled(-weight * inverse * inverse * d_weight / pixels, lanes_)
    constant = _tiled(-weight * inverse * d_bias / pixels, lanes_)
    for row in range(x.shape[0]):
        passed = kept[row if dear else 0]
        if not dear:
            _passed(grad[row], y[row], x[row], factors, summands, kind, after, p > 0, passed)
        for lane in range(lanes_):
            centred = widen(x[row, lane]) - means[lane]
            value = of_grad[lane] * passed[lane] + of_x[lane] * centred + constant[lane]
            dx[row, lane] = narrow(value, x[row, lane])
    return d_weight, d_bias
