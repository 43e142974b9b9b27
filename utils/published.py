"""The figures that the original study published, to set ours beside; source: its README.

One seed each, the best epoch as seen on the test set, percent. Typed once, here, because they are
quotations; everything else in the project is computed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the original states of one model."""

    parameters: int
    train_accuracy: float  # best, percent
    train_epoch: str
    test_accuracy: float  # best, percent
    test_epoch: str


PUBLISHED: dict[int, Published] = {
    1: Published(75_408, 99.33, "epoch 15", 99.01, "epoch 14"),
    2: Published(14_760, 98.53, "epoch 15", 98.55, "epoch 10"),
    3: Published(9_446, 98.82, "epoch 15", 98.82, "epoch 14"),
    4: Published(8_714, 99.41, "epoch 15", 99.29, "epoch 14"),
    5: Published(8_694, 99.24, "epoch 15", 99.22, "epoch 15"),
    6: Published(5_194, 98.97, "epoch 15", 99.35, "epoch 12"),
    7: Published(7_598, 98.92, "epoch 15", 99.20, "epoch 15"),
    8: Published(7_598, 98.63, "epoch 15", 99.26, "epoch 15"),
    9: Published(7_598, 99.08, "epoch 15", 99.42, "from epoch 12"),
    10: Published(6_022, 98.86, "epoch 15", 99.41, "from epoch 14"),
}
