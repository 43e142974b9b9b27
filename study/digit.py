"""Prepare a photo, scan or drawing of a digit as MNIST was, and classify it.

MNIST's makers cropped each digit, scaled its longer side to 20 pixels and moved its centre of mass
to the centre of 28x28 pixels (LeCun et al., Gradient-Based Learning, 1998).
"""

import functools
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor

from models import IMAGE_SIZE
from study.records import Record
from study.store import load_network
from utils.evaluation import predict
from utils.validation import OneLineError, first_line

BOX = 20  # pixels, the longer side of a digit
MOST_PIXELS = 50_000_000  # of a picture
WORKING_SIDE = 400  # pixels; larger pictures are reduced to it first
LEAST_CONTRAST = 0.1  # black against white is 1
# An answer less probable is "not sure"; chosen on held-out images, see study/robustness.py.
SURE = 0.95
LUMA = 0.299, 0.587, 0.114  # weights of red, green and blue in grey, as in Pillow (ITU-R 601)
# A path, a PIL image, or an array or tensor [H, W], [1, H, W] or [H, W, 1, 3 or 4].
Picture = str | Path | Image.Image | numpy.ndarray | Tensor


class PictureError(OneLineError, ValueError):
    """A picture that cannot be read, or does not show exactly one digit."""


class Reading(NamedTuple):
    """A network's answer to a picture."""

    digit: int
    probabilities: tuple[float, ...]  # of the digits 0 to 9
    image: Tensor  # [28, 28] uint8, the network's input

    @property
    def second(self) -> int:
        """The digit with the next largest probability."""
        return sorted(range(10), key=self.probabilities.__getitem__)[-2]

    @property
    def sure(self) -> bool:
        """Whether the answer's probability is `SURE` or more."""
        return self.probabilities[self.digit] >= SURE

    def __str__(self) -> str:
        first, second = (f"{100 * self.probabilities[d]:.0f} %" for d in (self.digit, self.second))
        if self.sure:
            return f"{self.digit}, with a probability of {first}"
        return f"not sure, {self.digit} ({first}) or {self.second} ({second})"

    __repr__ = __str__


def read_digit(picture: Picture, run: Record) -> Reading:
    """The answer of a recorded run's network to a picture of one digit.

    Args:
        picture: a path, a PIL image, or an array or tensor (see `Picture`).
        run: e.g. `runs("9-final", 0)[0]`; its weights must be kept.

    Raises:
        PictureError: if the picture cannot be read, or shows no digit or several.
        RecordError: if the weights are not there.
    """
    image = as_mnist(picture)
    probabilities = predict(load_network(run), image[None], run.statistics).exp()[0]
    return Reading(int(probabilities.argmax()), tuple(probabilities.tolist()), image)


def as_mnist(picture: Picture) -> Tensor:
    """A picture of one digit prepared as MNIST was: [28, 28] uint8, ink 255 on 0.

    Dark on light or light on dark, of any size and place; shadows, specks and lines are removed.

    Raises:
        PictureError: if it cannot be read, or shows no digit or several.
    """
    ink = _ink(_grey(picture))
    ink = ink[ndimage.find_objects((ink > 0).astype(int))[0]]  # cropped
    if min(ink.shape) > 0.7 * max(ink.shape) and ink.mean() > 0.6:
        raise PictureError("the picture shows a dot; draw a digit, or crop the picture to one")
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink.astype(numpy.float32))
    small = small.resize((width, height), Image.Resampling.BICUBIC)
    small = numpy.clip(small / numpy.max(small), 0, 1)
    margins = []  # with which the centre of mass is at the centre, as far as the digit fits
    for side, centre in zip(small.shape, ndimage.center_of_mass(small), strict=True):
        start = min(max(round(IMAGE_SIZE / 2 - centre), 0), IMAGE_SIZE - side)
        margins.append((start, IMAGE_SIZE - side - start))
    return torch.from_numpy(numpy.pad(small * 255, margins).round().astype(numpy.uint8))


def _grey(picture: Picture) -> numpy.ndarray:
    """Any picture as [H, W] floats in 0..1, 1 being white."""
    if isinstance(picture, str | os.PathLike):
        picture = _opened(Path(os.path.expanduser(picture)))
    if isinstance(picture, Image.Image):
        if picture.width * picture.height > MOST_PIXELS:
            size = f"{picture.width}x{picture.height} pixels"
            raise PictureError(f"the picture has {size}; shrink it, or crop it to the digit")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode[0] not in "IF":  # those have more than 8 bits, which Pillow would clip
            # Converted first, because Pillow would reduce pictures of bits without averaging.
            picture = picture.convert("RGBA" if picture.has_transparency_data else "L")
            scale = min(1, WORKING_SIDE / max(picture.size))
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.BICUBIC)
    array = numpy.asarray(picture.detach().cpu() if isinstance(picture, Tensor) else picture)
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > 4:
        array = array[0]
    image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not image or array.dtype.kind not in "buif" or not array.size:
        found = f"{array.dtype} of shape {array.shape}"
        raise PictureError(f"a picture is an array of numbers [H, W] or [H, W, 3], not {found}")
    if not numpy.isfinite(array).all():
        raise PictureError("the picture has pixels that are NaN or infinite; replace them")
    top = 255 if array.dtype == numpy.uint8 else max(1.0, array.max())
    return _flat(numpy.clip(array.astype(float) / top, 0, 1))


def _opened(path: Path) -> Image.Image:
    if os.path.exists(path) and not os.path.isfile(path):  # a folder, or a pipe, which would block
        raise PictureError(f"{path} is no file; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path)
        if picture.width * picture.height <= MOST_PIXELS:
            picture.load()
        return picture
    except (FileNotFoundError, NotADirectoryError):
        message = f"there is no picture {path}; give the path of a file"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = first_line(error)
        message = f"{path} cannot be read as a picture ({reason}); save it as PNG or JPEG"
    raise PictureError(message)


def _flat(values: numpy.ndarray) -> numpy.ndarray:
    """[H, W] from [H, W] or [H, W, channels]; transparent pixels become the background."""
    if values.ndim == 2 or values.shape[2] == 1:
        return values.reshape(values.shape[:2])
    grey = values[..., :3] @ LUMA
    if values.shape[2] < 4:
        return grey
    alpha = values[..., 3]
    light = (grey * alpha).sum() > 0.5 * alpha.sum()  # then the background is dark
    return grey * alpha + (0.0 if light else 1.0) * (1 - alpha)


def _ink(grey: numpy.ndarray) -> numpy.ndarray:
    """Amount of ink at each pixel, 0..1, of the one digit in the picture.

    Ink is darker than a threshold that follows shadows, from mean and deviation around each pixel
    (Wolf and Jolion, Extraction and recognition of artificial text in multimedia documents, 2004).
    """
    if numpy.median(grey) < (grey.min() + grey.max()) / 2:  # most pixels show paper
        grey = 1 - grey
    side, reach = min(grey.shape), max(1, max(grey.shape) // 50)  # pixels
    around = functools.partial(ndimage.uniform_filter, size=max(15, side // 4) | 1)
    mean = around(grey)
    std = numpy.sqrt(numpy.maximum(around(grey**2) - mean**2, 0))
    mask = grey <= mean - (1 - std / max(std.max(), 1e-9)) * (mean - grey.min()) / 2 + 1e-6
    strokes = _without_lines(mask)
    lines = ndimage.binary_dilation(mask & ~strokes) & ~strokes
    paper = 1.0 - (ndimage.binary_dilation(strokes, iterations=reach) | lines)
    ink = around(grey * paper) / numpy.maximum(around(paper), 1e-9) - grey
    most, noise = ink[strokes].max(), 1.4826 * numpy.median(abs(ink[~mask | mask.all()]))
    step = max(1, side // 25)  # pixels: within it the edge of a stroke rises, no soft shadow does
    steepest = max(abs(g[step:] - g[:-step]).max(initial=0) for g in (grey, grey.T))
    if most < max(LEAST_CONTRAST, 6 * noise) or steepest < most / 2:
        raise PictureError("the picture is empty: nothing stands out from its background")
    ink = numpy.clip((ink - 4 * noise) / (most - 4 * noise), 0, 1) * ~lines
    return numpy.where(_digit(ink, strokes & (ink > 0.2), reach), ink, 0)


def _digit(ink: numpy.ndarray, mask: numpy.ndarray, reach: int) -> numpy.ndarray:
    """The strokes of the one digit, wider by `reach`; without specks and shadows."""
    labels, count = ndimage.label(mask, numpy.ones((3, 3)))
    every, areas = range(1, count + 1), numpy.bincount(labels.ravel())
    peaks, boxes = ndimage.maximum(ink, labels, every), ndimage.find_objects(labels)
    across = [any(s == slice(0, n) for s, n in zip(box, mask.shape, strict=True)) for box in boxes]
    inner = [n for n in every if peaks[n - 1] > 0.5 and not across[n - 1]] or list(every)
    strokes = numpy.isin(labels, [n for n in inner if areas[n] >= 0.03 * areas[inner].max()])
    for axis, gap in ((0, 1), (1, len(mask) // 16 + 1)):  # beside, and above one another
        shown = ndimage.binary_closing(numpy.pad(strokes.any(axis), gap), numpy.ones(gap))
        parts = ndimage.find_objects(ndimage.label(shown[gap:-gap])[0])
        cuts = (strokes[part] if axis else strokes[:, part[0]] for part in parts)
        heights = [numpy.ptp(numpy.flatnonzero(cut.any(1))) + 1 for cut in cuts]
        if (digits := sum(height > 0.6 * max(heights) for height in heights)) > 1:
            raise PictureError(f"the picture shows {digits} digits; keep only one")
    return ndimage.binary_dilation(strokes, iterations=reach)


def _without_lines(mask: numpy.ndarray) -> numpy.ndarray:
    """The mask without lines of ruled or squared paper: thin, and across the whole picture."""
    kept, thick, widest = mask.copy(), min(mask.shape) // 40 + 1, 0  # pixels
    for axis, lines in ((1, kept), (0, kept.T)):
        full = mask.mean(axis) > 0.9
        thin = full & ~ndimage.binary_opening(full, numpy.ones(thick))
        lines[thin] = False
        widest = max(widest, *numpy.bincount(ndimage.label(thin)[0])[1:], 0)
    changed = kept.any() and (kept != mask).any()
    return kept | ndimage.binary_closing(kept, iterations=widest // 2 + 1) if changed else mask
