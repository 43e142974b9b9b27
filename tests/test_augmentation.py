import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as T

import fast
from models import MODELS
from study.show.pictures import rotation_angles
from utils.augmentation import apply_affine, batch, distort, normalise, sample_affine
from utils.device import Engine
from utils.recipes import Recipe
from utils.training import Trainer


def draw(recipe: Recipe, count: int = 4_000, seed: int = 0, magnitude: float = 1.0) -> torch.Tensor:
    return sample_affine(recipe, count, torch.Generator().manual_seed(seed), magnitude)


def angles(matrices: torch.Tensor) -> torch.Tensor:
    return torch.tensor(rotation_angles(matrices))


@pytest.mark.parametrize("limits", [(6.9,), (6.9, 15.0)])
def test_rotations_are_uniform_within_their_limits_and_add_up_independently(limits):
    rotated = angles(draw(Recipe(rotations=limits)))
    assert 0.9 * sum(limits) < rotated.abs().max() <= sum(limits)
    assert abs(rotated.std() - math.hypot(*limits) / math.sqrt(3)) < 0.2
    assert len(rotated.unique()) > 3_900  # every image has its own


def test_the_magnitude_is_a_factor_on_every_limit():
    recipe = Recipe(rotations=(8.0,), translate=0.1)
    whole, half = draw(recipe), draw(recipe, magnitude=0.5)
    torch.testing.assert_close(angles(half), angles(whole) / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(half[:, :, 2], whole[:, :, 2] / 2)
    assert not torch.allclose(draw(recipe, seed=1), whole)


def test_translation_scale_and_shear_stay_within_their_limits():
    shifts = draw(Recipe(translate=0.1))[:, :, 2]
    widest = shifts.abs().amax(0)  # the side is 2 long in these coordinates
    assert 0.198 < widest.min() <= widest.max() <= 0.2
    zoomed = draw(Recipe(scale=0.1))[:, 0, 0]
    assert 1 / 1.1 <= zoomed.min() < zoomed.max() <= 1 / 0.9
    sheared = torch.rad2deg(draw(Recipe(shear=5.0))[:, 0, 1].atan())
    assert 4.9 < sheared.abs().max() <= 5.0


def test_rotation_agrees_with_torchvision(mnist):
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    assert rotation_angles(quarter) == pytest.approx([90.0])
    images = mnist.test.images[:20].unsqueeze(1).float()
    matrices = draw(Recipe(rotations=(15.0,)), 20)
    ours = apply_affine(images, matrices)
    for image, matrix, rotated in zip(images, matrices, ours, strict=True):
        angle = float(angles(matrix[None]))
        theirs = T.rotate(image, angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(rotated, theirs, atol=0.5, rtol=0)


def test_a_shift_moves_the_image_by_that_many_pixels_and_leaves_background():
    images = torch.zeros(1, 1, 28, 28)
    images[0, 0, 14, 14:] = 255
    matrix = torch.tensor([[[1.0, 0, 2 * 3 / 28], [0, 1.0, 0]]])  # 3 pixels along x
    row = apply_affine(images, matrix)[0, 0, 14]
    assert row.tolist() == pytest.approx([0] * 11 + [255] * 14 + [0] * 3, abs=0.01)


@pytest.mark.parametrize("degrees", [0.0, 15.0, 180.0])
def test_a_compiled_batch_equals_the_plain_one(mnist, degrees):
    recipe = Recipe(rotations=(degrees,), translate=0.3, scale=0.2, shear=10.0)
    index = torch.randint(1_000, (300,), generator=torch.Generator().manual_seed(4))
    arguments = mnist.train.images, index, draw(recipe, 300), (0.13, 0.31)
    expected, got = batch(*arguments), fast.augmented_batch(*arguments)
    assert got.shape == expected.shape == (300, 1, 28, 28)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ([0, 7], 1.0, "index: images are numbered 0 to 6"),
        ([0, -1], 1.0, "index: images are numbered 0 to 6"),
        ([0, 1], math.nan, r"matrices: expected \[2, 2, 3\] of finite"),
        ([0, 1], math.inf, r"matrices: expected \[2, 2, 3\] of finite"),
        ([0, 1, 2], 1.0, r"matrices: expected \[3, 2, 3\]"),
    ],
)
def test_what_compiled_code_would_crash_at_is_refused(mnist, index, value, message):
    matrices = torch.full((2, 2, 3), value)
    with pytest.raises(ValueError, match=message):
        fast.augmented_batch(mnist.train.images[:7], torch.tensor(index), matrices, (0.0, 1.0))


def test_a_batch_is_the_transformed_and_normalised_images(mnist):
    index = torch.tensor([5, 3, 5])
    matrices = draw(Recipe(rotations=(15.0,)), 3)
    pixels = mnist.train.images[index].unsqueeze(1).float() / 255
    got = batch(mnist.train.images, index, matrices, (0.5, 0.25))
    assert torch.equal(got, normalise(apply_affine(pixels, matrices), (0.5, 0.25)))
    plain = batch(mnist.train.images, index, None, (0.5, 0.5))
    assert plain.shape == (3, 1, 28, 28)
    torch.testing.assert_close(plain[1, 0], mnist.train.images[3] / 127.5 - 1)


def distorted(images: torch.Tensor, magnitude: float = 1.0, **fields) -> torch.Tensor:
    recipe, generator = Recipe(**fields), torch.Generator().manual_seed(0)
    matrices = draw(Recipe(), len(images))
    return distort(images, matrices, recipe, generator, magnitude)


def test_each_stroke_of_a_recipe_does_what_it_says_and_none_does_nothing(mnist):
    images = mnist.test.images[:400].unsqueeze(1).float() / 255
    plain = distorted(images)
    torch.testing.assert_close(plain, images, atol=1e-3, rtol=0)
    ink = plain.sum((1, 2, 3))
    gained = distorted(images, thickness=0.8).sum((1, 2, 3)) / ink
    assert gained.min() < 0.7
    assert gained.max() > 1.5
    assert abs(gained.median() - 1) < 0.2
    bent = distorted(images, elastic=0.05)
    assert 0.9 < (bent.sum((1, 2, 3)) / ink).mean() < 1.1
    assert (bent - plain).abs().mean() > 0.02
    coarse = (distorted(images, low_resolution=0.4) - plain).abs().amax((1, 2, 3)) > 0.05
    assert 0.3 < coarse.float().mean() < 0.5
    inked = distorted(images, ink=0.5)
    grey = (plain > 0.3) & (plain < 0.7)
    exponent = (inked[grey].log() / plain[grey].log()).log()
    assert 0.45 < exponent.abs().max() <= 0.51
    assert abs(exponent.mean()) < 0.05
    half = distorted(images, magnitude=0.5, ink=0.5)
    torch.testing.assert_close(half[grey].log() / plain[grey].log(), (exponent / 2).exp())


def test_a_trainer_draws_anew_in_every_epoch_and_calms_the_last(mnist):
    changed = {"rotations": (10.0,), "elastic": 0.05, "thickness": 0.8}
    recipe = Recipe(**changed, calm_epochs=1, calm=0.0, epochs=3, batch_size=50)
    train = mnist.train.part(slice(100))
    trainer, seen = Trainer(MODELS[4], recipe, train, Engine(), 0), []
    make = trainer.make_batch

    def watched(images, index, *more):
        seen[-1][index] = made = make(images, index, *more)
        return made

    trainer.make_batch = watched
    for epoch in (1, 2, 3):
        seen.append(torch.empty(100, 1, 28, 28))
        trainer.train_epoch(epoch)
    first, second, last = seen
    plain = normalise(train.images.unsqueeze(1).float() / 255, trainer.statistics)
    torch.testing.assert_close(last, plain, atol=0.01, rtol=0)
    pairs = (first, plain), (second, plain), (first, second)
    assert min((a - b).abs().mean() for a, b in pairs) > 0.05
