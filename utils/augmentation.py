"""Augmentation: a random affine transform for each image of a batch, on the images' device.

Plain torch, on any device. On a CPU the trainer computes the same by `fast.augmented_batch`, in one
compiled pass: who changes a transform here changes it there, too. A test compares the two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import IMAGE_SIZE
from utils.recipes import Recipe


def sample_affine(
    recipe: Recipe, count: int, generator: torch.Generator, magnitude: float = 1.0
) -> Tensor:
    """Draw one inverse affine matrix per image, [count, 2, 3], on the generator's device.

    Angles of several rotations add up, as if the images were rotated several times, but each image
    is resampled only once. Coordinates run from -1 to 1 across the image, so a shift by a share t
    of the side is 2 t. `magnitude` is a factor on every limit of the recipe.
    """

    def uniform(limit: float) -> Tensor:
        unit = torch.rand(count, generator=generator, device=generator.device)
        return (2 * unit - 1) * (limit * magnitude)

    angle = torch.zeros(count, device=generator.device)
    for limit in recipe.rotations:
        angle = angle + uniform(limit)
    angle, shear = torch.deg2rad(angle), torch.deg2rad(uniform(recipe.shear))
    inverse_zoom = 1 / (1 + uniform(recipe.scale))
    shift_x, shift_y = uniform(2 * recipe.translate), uniform(2 * recipe.translate)
    cos, sin = angle.cos() * inverse_zoom, angle.sin() * inverse_zoom
    tan = shear.tan()
    rows = (cos, cos * tan - sin, shift_x), (sin, sin * tan + cos, shift_y)
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def apply_affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample each image by its own matrix, bilinearly; outside is background (0).

    Args:
        images: [N, 1, 28, 28] float, background 0 (that is, before normalisation).
        matrices: [N, 2, 3] from `sample_affine`, mapping output to input coordinates.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def distort(
    images: Tensor, matrices: Tensor, recipe: Recipe, generator: torch.Generator, magnitude: float
) -> Tensor:
    """Affine transforms, and strokes as others might draw them, by a recipe that `distorts`.

    Arguments as for `apply_affine` and `sample_affine`; pixels 0..1. The elastic displacement is
    that of Simard et al., Best practices for convolutional neural networks, 2003, on a coarse grid.
    """

    def uniform(limit: float) -> Tensor:
        shape = len(images), 1, 1, 1
        return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1) * limit

    coarse = torch.randn(len(images), 2, 4, 4, generator=generator, device=generator.device)
    flow = _resized(coarse * recipe.elastic * magnitude, IMAGE_SIZE)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid + flow.permute(0, 2, 3, 1), align_corners=False)
    amount = uniform(recipe.thickness * magnitude)
    wider, thinner = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    images = images + amount.relu() * (wider - images) + (-amount).relu() * (thinner - images)
    coarser = torch.where(uniform(1) > 0, enlarged(images, 8), enlarged(images, 12))
    images = torch.where(uniform(0.5) + 0.5 < recipe.low_resolution * magnitude, coarser, images)
    return images.clamp(0, 1) ** uniform(recipe.ink * magnitude).exp()


def enlarged(images: Tensor, side: int) -> Tensor:
    """Images [N, 1, H, W] reduced to so many pixels and enlarged again, the largest value at 1."""
    few = F.interpolate(images, size=side, mode="area")
    again = _resized(few, images.shape[-1]).clamp(0, 1)
    return again / again.amax((2, 3), keepdim=True).clamp(min=0.1)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=side, mode="bicubic", align_corners=False)


def batch(
    images: Tensor, index: Tensor, matrices: Tensor | None, statistics: tuple[float, float]
) -> Tensor:
    """A training batch [N, 1, 28, 28], float32: the images at `index`, transformed, normalised.

    Args:
        images: [M, 28, 28] uint8.
        index: [N] int64, which of them.
        matrices: [N, 2, 3] from `sample_affine`, one per batch image; None for no transform.
        statistics: mean and std of the pixels on the scale 0..1.
    """
    picked = images[index].unsqueeze(1).float() / 255
    if matrices is not None:
        picked = apply_affine(picked, matrices)
    return normalise(picked, statistics)


def normalise(images: Tensor, statistics: tuple[float, float]) -> Tensor:
    """Pixels 0..1 to mean 0 and std 1, by the statistics (mean, std) of the training split."""
    mean, std = statistics
    return (images - mean) / std
