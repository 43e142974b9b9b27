"""Compiled passes over space: max pooling, and the affine transforms of a batch."""

import numpy as np

from fast.kernels import compiled, narrow, widen


@compiled
def _larger(best, which, stored, k):
    """The larger of the best value so far and the one stored at place k; NaN counts as largest."""
    value = widen(stored)
    if value > best or value != value:
        return value, np.uint8(k)
    return best, which


@compiled
def max_pool(x, y, chosen):
    """2x2 max pooling. x: [rows, 2, columns, 2, C]; y and chosen: [rows, columns, C].

    `chosen` is which of the four was the largest, 0..3, the first of equals.
    """
    for row in range(y.shape[0]):
        for column in range(y.shape[1]):
            for c in range(y.shape[2]):
                best, which = widen(x[row, 0, column, 0, c]), np.uint8(0)
                best, which = _larger(best, which, x[row, 0, column, 1, c], 1)
                best, which = _larger(best, which, x[row, 1, column, 0, c], 2)
                best, which = _larger(best, which, x[row, 1, column, 1, c], 3)
                y[row, column, c] = narrow(best, x[row, 0, column, 0, c])
                chosen[row, column, c] = which


@compiled
def max_pool_backward(grad, chosen, dx):
    """The gradient of `max_pool`, shapes alike."""
    zero = np.zeros(1, grad.dtype)[0]
    for row in range(grad.shape[0]):
        for column in range(grad.shape[1]):
            for c in range(grad.shape[2]):
                value, which = grad[row, column, c], chosen[row, column, c]
                dx[row, 0, column, 0, c] = value if which == 0 else zero
                dx[row, 0, column, 1, c] = value if which == 1 else zero
                dx[row, 1, column, 0, c] = value if which == 2 else zero
                dx[row, 1, column, 1, c] = value if which == 3 else zero


@compiled
def _copy_inside(image, padded):
    """Copy [S, S] uint8 into the middle of [S + 4, S + 4] float32; the rings around it stay."""
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            padded[i + 2, j + 2] = image[i, j]


@compiled
def augment(images, index, matrices, mean, std, out):
    """Images [M, S, S] uint8 at `index` -> out [N, S, S] float32, transformed and normalised.

    Bilinear, background 0, as `utils.augmentation.apply_affine`; `mean` and `std` of pixels 0..1.
    Of the three loops along a row, the one in the middle fetches four pixels from anywhere: vector
    instructions cannot do that, but they do the other two.
    """
    side = images.shape[1]
    wide = side + 4  # coordinates beyond the two rings of background are moved into them
    padded = np.zeros((wide, wide), np.float32)
    pixels = padded.reshape(wide * wide)
    half, last = np.float32(side / 2), np.float32(wide - 1.5)
    factor, mean = np.float32(1 / (255 * std)), np.float32(mean / std)
    steps = np.empty(side, np.float32)
    for j in range(side):
        steps[j] = (2 * j + 1) / side - 1
    places = np.empty(side, np.int32)
    right, down = np.empty(side, np.float32), np.empty(side, np.float32)
    corners = np.empty((4, side), np.float32)
    for n in range(index.size):
        _copy_inside(images[index[n]], padded)
        m = matrices[n]
        for i in range(side):
            from_x, from_y = m[0, 1] * steps[i] + m[0, 2], m[1, 1] * steps[i] + m[1, 2]
            for j in range(side):
                x = (m[0, 0] * steps[j] + from_x) * half + (half + np.float32(1.5))
                y = (m[1, 0] * steps[j] + from_y) * half + (half + np.float32(1.5))
                x = min(max(x, np.float32(0)), last)
                y = min(max(y, np.float32(0)), last)
                left, top = np.int32(x), np.int32(y)
                right[j], down[j] = x - np.float32(left), y - np.float32(top)
                places[j] = top * np.int32(wide) + left
            for j in range(side):
                k = np.uintp(places[j])
                corners[0, j], corners[1, j] = pixels[k], pixels[k + np.uintp(1)]
                k += np.uintp(wide)
                corners[2, j], corners[3, j] = pixels[k], pixels[k + np.uintp(1)]
            for j in range(side):
                upper = corners[0, j] + (corners[1, j] - corners[0, j]) * right[j]
                lower = corners[2, j] + (corners[3, j] - corners[2, j]) * right[j]
                out[n, i, j] = (upper + (lower - upper) * down[j]) * factor - mean
