"""What a network answers: log-probabilities, confusion matrix, accuracy."""

import numpy
import torch
from torch import Tensor, nn

from models import IMAGE_SIZE
from utils.augmentation import normalise
from utils.device import Engine, exclusive
from utils.validation import short_repr

CPU_BATCH, ACCELERATOR_BATCH = 200, 5_000  # images; the results do not depend on it


def predict(
    network: nn.Module, images: Tensor | numpy.ndarray, statistics: tuple[float, float]
) -> Tensor:
    """Log-probabilities [N, 10], float32 on the CPU, of images [N, 28, 28] or [N, 1, 28, 28].

    Always in float32 on the network's device, whatever the training precision and global settings.

    Args:
        network: its mode is set to evaluation.
        images: raw pixels, uint8 or floats 0..1, strokes bright; they are normalised here. A
            ValueError for another shape or range.
        statistics: mean and std of the pixels on the scale 0..1, as in `utils.training.Trained`.
    """
    network.eval()
    images = raw_pixels(images)
    device = next(network.parameters()).device
    size = CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH  # fewer kernel launches
    engine = Engine(str(device), threads=torch.get_num_threads())
    with exclusive(engine), torch.inference_mode():
        batches = (part.unsqueeze(1).to(device).float() / 255 for part in images.split(size))
        return torch.cat([network(normalise(batch, statistics)) for batch in batches]).cpu()


def correct(
    network: nn.Module, images: Tensor, labels: Tensor, statistics: tuple[float, float]
) -> Tensor:
    """Which images a network reads as they are labelled, [N] booleans; as `predict`."""
    return predict(network, images, statistics).argmax(1) == labels


def raw_pixels(images: Tensor | numpy.ndarray) -> Tensor:
    """Images as uint8 [N, 28, 28], also from floats 0..1 as torchvision's `ToTensor` gives them.

    Floats are rounded to the 256 greys that the networks were trained on. A ValueError for another
    shape or range: normalised already, or of another size.
    """
    if not isinstance(images, Tensor):
        try:
            images = torch.from_numpy(numpy.asarray(images))
        except TypeError:
            raise ValueError(f"images are an array or tensor, not {short_repr(images)}") from None
    if images.dim() == 4 and images.shape[1] == 1:
        images = images.squeeze(1)
    if images.dim() != 3 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        shape = tuple(images.shape)
        raise ValueError(f"images have shape {shape}; expected [N, 28, 28], or [N, 1, 28, 28]")
    if images.dtype == torch.uint8:
        return images
    top = 1 if images.is_floating_point() or images.dtype == torch.bool else 255
    if not ((images >= 0) & (images <= top)).all():
        found = f"images run from {images.min().item():g} to {images.max().item():g}"
        expected = "uint8 0 to 255 or floats 0 to 1, not normalised: that is done here"
        raise ValueError(f"{found}; expected {expected}")
    return (images * (255 // top)).round().to(torch.uint8)


def confusion_matrix(log_probabilities: Tensor, labels: Tensor) -> list[list[int]]:
    """[10][10] counts: row = true digit, column = predicted digit."""
    pairs = labels * 10 + log_probabilities.argmax(1)
    return torch.bincount(pairs, minlength=100).reshape(10, 10).tolist()


def accuracy(confusion: list[list[int]]) -> float:
    """Share of correct answers in a confusion matrix, percent."""
    return 100 * int(numpy.trace(confusion)) / sum(map(sum, confusion))
