"""What a network answers: log-probabilities, confusion matrix, accuracy."""

import torch
from torch import Tensor, nn

from utils.augment import normalise
from utils.engine import ONE_RUN, Engine, pinned

EVALUATION_BATCH = {"cpu": 200}  # images; no effect on the figures
ACCELERATOR_BATCH = 5_000  # the same elsewhere, where every launch costs


def predict(network: nn.Module, images: Tensor, statistics: tuple[float, float]) -> Tensor:
    """Log-probabilities [N, 10], float32 on the CPU, of uint8 images [N, 28, 28].

    Computed in float32 on the network's device, whatever it was trained in and the caller has set.

    Args:
        network: its mode is set to evaluation.
        images: raw pixels; they are normalised here.
        statistics: mean and SD of the pixels on the scale 0..1, as in `utils.training.Trained`.
    """
    network.eval()
    device = next(network.parameters()).device
    size = EVALUATION_BATCH.get(device.type, ACCELERATOR_BATCH)
    with (
        ONE_RUN,
        pinned(Engine(str(device), threads=torch.get_num_threads())),
        torch.inference_mode(),
    ):
        parts = [
            network(normalise(part.unsqueeze(1).to(device).float() / 255, statistics))
            for part in images.split(size)
        ]
        return torch.cat(parts).cpu()


def confusion_matrix(log_probabilities: Tensor, labels: Tensor) -> list[list[int]]:
    """[10][10] counts: row = true digit, column = predicted digit."""
    pairs = labels * 10 + log_probabilities.argmax(1)
    return torch.bincount(pairs, minlength=100).reshape(10, 10).tolist()


def accuracy(confusion: list[list[int]]) -> float:
    """Share of right answers in a confusion matrix, percent."""
    hits = sum(confusion[digit][digit] for digit in range(len(confusion)))
    return 100 * hits / sum(map(sum, confusion))
