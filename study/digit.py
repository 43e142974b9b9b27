"""A photo, scan or drawing of a digit as the networks read it, and what a network answers.

MNIST's makers cropped each digit, scaled its longer side to 20 pixels and moved its centre of mass
into the middle of 28x28 (LeCun et al., Gradient-Based Learning, 1998). A network that was trained
on such images reads little else, so every picture goes the same way here.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from scipy import ndimage
from torch import Tensor

from models import IMAGE_SIZE
from study.records import Record
from study.store import load_network
from utils.evaluation import predict
from utils.validation import OneLineError, first_line

BOX = 20  # pixels, the longer side of a digit
MOST_PIXELS = 50_000_000  # of a picture
WORKING_SIDE = 400  # pixels, to which larger pictures are reduced first
THUMBNAIL = 40  # pixels; a smaller picture has no shadows and no specks
LEAST_CONTRAST = 0.1  # of black against white
LUMA = 0.299, 0.587, 0.114  # how light red, green and blue look, as Pillow has it (ITU-R 601)


class PictureError(OneLineError, ValueError):
    """A picture that shows no digit, or not one alone."""


@dataclass(frozen=True)
class Reading:
    """What a network makes of a picture."""

    digit: int
    probabilities: tuple[float, ...]  # of the digits 0 to 9
    image: Tensor  # [28, 28] uint8: what the network saw

    def __str__(self) -> str:
        return f"a {self.digit}, with a probability of {self.probabilities[self.digit]:.0%}"


def read_digit(picture: str | Path | Image.Image | numpy.ndarray | Tensor, run: Record) -> Reading:
    """The answer of a recorded run's network to a picture of one digit.

    Args:
        picture: as for `as_mnist`.
        run: e.g. `runs("9-final", 0)[0]`; its weights must be kept.

    Raises:
        PictureError: if the picture cannot be read, or shows no digit or several.
        RecordError: if the weights are not there.
    """
    image = as_mnist(picture)
    probabilities = predict(load_network(run), image[None], run.statistics).exp()[0]
    return Reading(int(probabilities.argmax()), tuple(probabilities.tolist()), image)


def as_mnist(picture: str | Path | Image.Image | numpy.ndarray | Tensor) -> Tensor:
    """A picture of one digit as MNIST has it: [28, 28] uint8, ink 255 on 0.

    Dark on light or light on dark, of any size and place; even shadows are taken out.

    Args:
        picture: a path, a PIL image, or an array or tensor [H, W], [1, H, W] or [H, W, 1, 3 or 4].

    Raises:
        PictureError: if it cannot be read, or shows no digit or several.
    """
    ink = _ink(_grey(picture))
    rows, columns = (numpy.flatnonzero(ink.any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if min(ink.shape) > 0.7 * max(ink.shape) and ink.mean() > 0.6:
        raise PictureError("the picture shows a dot; draw a digit, or crop the picture to one")
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink.astype(numpy.float32)).resize((width, height), Resampling.BICUBIC)
    small = numpy.clip(small / numpy.max(small), 0, 1)
    return torch.from_numpy(_centred(small).round().astype(numpy.uint8))


def _grey(picture) -> numpy.ndarray:
    """Any picture as [H, W] floats in 0..1, 1 being white."""
    if isinstance(picture, str | os.PathLike):
        picture = _opened(Path(os.path.expanduser(picture)))
    if isinstance(picture, Image.Image):
        if picture.width * picture.height > MOST_PIXELS:
            size = f"{picture.width}x{picture.height} pixels"
            raise PictureError(f"the picture has {size}; shrink it, or crop it to the digit")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode[0] in "IF":  # of more than 8 bits, which Pillow would clip
            return _grey(numpy.asarray(picture))
        transparent = picture.has_transparency_data
        picture = picture.convert("RGBA" if transparent else "L")  # bits would be subsampled
        picture.thumbnail((WORKING_SIDE, WORKING_SIDE))
        return _flat(numpy.asarray(picture) / 255)
    array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    array = numpy.asarray(array)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    flat = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not flat or array.dtype.kind not in "buif" or not array.size:
        kind = f"{array.dtype} of shape {array.shape}"
        raise PictureError(f"a picture is an array of numbers [H, W] or [H, W, 3], not {kind}")
    if not numpy.isfinite(array).all():
        raise PictureError("the picture has pixels that are NaN or infinite; replace them")
    values = array.astype(float)
    top = 255 if array.dtype == numpy.uint8 else max(1.0, values.max())
    return _flat(numpy.clip(values / top, 0, 1))


def _opened(path: Path) -> Image.Image:
    # A folder, or a pipe, which would be waited for.
    if os.path.exists(path) and not os.path.isfile(path):
        raise PictureError(f"{path} is no file; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours says what to do
            picture = Image.open(path)
        if picture.width * picture.height <= MOST_PIXELS:
            picture.load()
    except (FileNotFoundError, NotADirectoryError):
        raise PictureError(f"there is no picture {path}; give the path of a file") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{path} is too large a picture; shrink it") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(
            f"{path} cannot be read as a picture ({first_line(error)}); save it as PNG or JPEG"
        ) from None
    return picture


def _flat(values: numpy.ndarray) -> numpy.ndarray:
    """[H, W] from [H, W] or [H, W, channels]; what is transparent becomes the other of the ink."""
    if values.ndim == 2:
        return values
    grey = values[..., 0] if values.shape[2] == 1 else values[..., :3] @ LUMA
    if values.shape[2] < 4:
        return grey
    alpha = values[..., 3]
    light = alpha.sum() > 0 and (grey * alpha).sum() / alpha.sum() > 0.5
    return grey * alpha + (0.0 if light else 1.0) * (1 - alpha)


def _ink(grey: numpy.ndarray) -> numpy.ndarray:
    """How much ink is at each pixel, 0..1, of the one digit in the picture."""
    height, width = grey.shape
    rim = max(1, min(height, width) // 20)
    edge = numpy.ones(grey.shape, bool)
    edge[rim : height - rim, rim : width - rim] = False
    ground = grey - _plane(grey, edge)  # a shadow that grows evenly is gone
    noise = 1.4826 * numpy.median(abs(ground[edge] - numpy.median(ground[edge])))
    dark, light = ((numpy.clip(ground, *ends) ** 2).sum() for ends in ((-1, 0), (0, 1)))
    ink = ground if light > dark else -ground
    most = ink.max()
    if most < max(LEAST_CONTRAST, 6 * noise):
        raise PictureError("the picture is empty: nothing stands out from its background")
    ink = numpy.clip((ink - 4 * noise) / (most - 4 * noise), 0, 1)
    if min(grey.shape) < THUMBNAIL:
        return ink
    return numpy.where(_digit(ink > 0.4), ink, 0)


def _plane(grey: numpy.ndarray, edge: numpy.ndarray) -> numpy.ndarray:
    """The background: the median of the edge, tilted as the medians of its four sides say."""
    height, width = grey.shape
    if min(height, width) < THUMBNAIL:
        return numpy.full(grey.shape, numpy.median(grey[edge]))
    rim = max(1, min(height, width) // 20)
    top, bottom = numpy.median(grey[:rim]), numpy.median(grey[-rim:])
    left, right = numpy.median(grey[:, :rim]), numpy.median(grey[:, -rim:])
    down = numpy.linspace(-0.5, 0.5, height)[:, None] * (bottom - top)
    across = numpy.linspace(-0.5, 0.5, width)[None] * (right - left)
    return numpy.median((grey - down - across)[edge]) + down + across


def _digit(mask: numpy.ndarray) -> numpy.ndarray:
    """The strokes of the one digit, a little wider than their mask; specks are left out."""
    labels, count = ndimage.label(mask, numpy.ones((3, 3)))
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    kept = [n for n, area in enumerate(areas, 1) if area >= 0.03 * areas.max()]
    places = ndimage.find_objects(labels)
    groups: list[list[int]] = []  # [left, right, top, bottom] of strokes above one another
    for n in sorted(kept, key=lambda n: places[n - 1][1].start):
        rows, columns = places[n - 1]
        if groups and columns.start < groups[-1][1]:
            left, right, top, bottom = groups[-1]
            right, top = max(right, columns.stop), min(top, rows.start)
            groups[-1] = [left, right, top, max(bottom, rows.stop)]
        else:
            groups.append([columns.start, columns.stop, rows.start, rows.stop])
    tallest = max(bottom - top for *_, top, bottom in groups)
    digits = sum(bottom - top > 0.6 * tallest for *_, top, bottom in groups)
    if digits > 1:
        raise PictureError(f"the picture shows {digits} digits; crop it to one")
    reach = max(1, max(mask.shape) // 50)
    return ndimage.binary_dilation(numpy.isin(labels, kept), iterations=reach)


def _centred(small: numpy.ndarray) -> numpy.ndarray:
    """[28, 28], 0..255, with the centre of mass in the middle, as far as the digit fits."""
    place = []
    for side, centre in zip(small.shape, ndimage.center_of_mass(small), strict=True):
        start = round(IMAGE_SIZE / 2 - centre)
        place.append(min(max(start, 0), IMAGE_SIZE - side))
    out = numpy.zeros((IMAGE_SIZE, IMAGE_SIZE))
    out[place[0] : place[0] + small.shape[0], place[1] : place[1] + small.shape[1]] = small * 255
    return out
