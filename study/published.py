"""What others have published, typed once; every other figure of the project is computed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the original study states of one model: one seed, its best epoch on the test set."""

    parameters: int
    train_accuracy: float  # best, percent
    train_epoch: str
    test_accuracy: float  # best, percent
    test_epoch: str


PUBLISHED: dict[int, Published] = {  # {model: what the original's README states}
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


@dataclass(frozen=True)
class Public:
    """A public network for MNIST: one seed, chosen on the test set by its authors."""

    parameters: int
    last: float  # test accuracy of its last epoch, percent
    epochs: int
    source: str  # repository


PUBLIC: tuple[Public, ...] = (
    Public(1_936, 99.10, 75, "ruslangrimov/mnist-minimal-model"),
    Public(3_762, 99.52, 15, "adilsammar/woolly-of-cv"),
    Public(4_838, 99.41, 15, "adilsammar/woolly-of-cv"),
    Public(6_174, 99.47, 15, "firekind/ERA4"),
)
# Test images whose label is wrong or disputed, counted from 0 (Northcutt et al., 2021).
DISPUTED = frozenset(
    (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)
)
