"""The ten networks of the study: one frozen config, one plain body, ten deltas.

Every entry of `MODELS` is its predecessor with one idea changed, so that a reader compares two
lines instead of two classes. All ten read [N, 1, 28, 28] images and return [N, 10]
log-probabilities.
"""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from utils.layers import BatchNormAct2d, MaxPool2x2, ReLUDropout

CLASSES = 10
IMAGE_SIZE = 28  # pixels, height and width


@dataclass(frozen=True)
class NetworkConfig:
    """What distinguishes one network from another; channel counts are output channels.

    Raises:
        ValueError: for a head that does not exist, a convolution that does not, or a dropout
            outside [0, 1).
    """

    edges: tuple[int, int]  # the two 3x3 convolutions at 28x28, where edges are found
    squeeze_1: int  # the 1x1 convolution after the pool, at 14x14
    middle: tuple[int, int]  # two unpadded 3x3 convolutions, 14 -> 12 -> 10
    squeeze_2: int  # the 1x1 convolution at 10x10
    late: tuple[int, int]  # two unpadded 3x3 convolutions, 10 -> 8 -> 6
    head: str = "conv6x6"  # "conv6x6": one big convolution; "gap": 6x6 average pool, then 1x1
    batch_norm: tuple[int, ...] = ()  # which of the 3x3 convolutions 1..6 it follows
    dropout: float = 0.0  # probability per element, after each 3x3 convolution but the last

    def __post_init__(self):
        if self.head not in ("conv6x6", "gap"):
            raise ValueError(f"head must be 'conv6x6' or 'gap', not {self.head!r}")
        if not set(self.batch_norm) <= set(range(1, 7)):
            raise ValueError(f"batch_norm lists 3x3 convolutions 1 to 6, not {self.batch_norm}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")


class Network(nn.Module):
    """The one body that all ten networks share.

    Source: the layer plan of the study re-done here (see README), with batch norm before ReLU.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        (e1, e2), (m1, m2), (l1, l2) = config.edges, config.middle, config.late
        self.edges = nn.Sequential(*self._conv3x3(1, 1, e1), *self._conv3x3(2, e1, e2))
        self.pool = MaxPool2x2()
        self.squeeze_1 = nn.Sequential(nn.Conv2d(e2, config.squeeze_1, 1, bias=False), nn.ReLU())
        self.middle = nn.Sequential(
            *self._conv3x3(3, config.squeeze_1, m1), *self._conv3x3(4, m1, m2)
        )
        self.squeeze_2 = nn.Sequential(nn.Conv2d(m2, config.squeeze_2, 1, bias=False), nn.ReLU())
        self.late = nn.Sequential(
            *self._conv3x3(5, config.squeeze_2, l1), *self._conv3x3(6, l1, l2)
        )
        if config.head == "gap":
            self.head = nn.Sequential(nn.AvgPool2d(6), nn.Conv2d(l2, CLASSES, 1, bias=False))
        else:
            self.head = nn.Sequential(nn.Conv2d(l2, CLASSES, 6, bias=False))

    def _conv3x3(self, index: int, inputs: int, outputs: int) -> list[nn.Module]:
        """The 3x3 convolution number `index` (1..6) with what follows it in this config."""
        padding = 1 if index <= 2 else 0
        dropout = self.config.dropout if index < 6 else 0.0
        if index in self.config.batch_norm:
            act: nn.Module = BatchNormAct2d(outputs, dropout)
        else:
            act = ReLUDropout(dropout)
        return [nn.Conv2d(inputs, outputs, 3, padding=padding, bias=False), act]

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] normalised images -> [N, 10] log-probabilities.

        Raises:
            ValueError: for any other image shape.
        """
        if x.dim() != 4 or x.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images have shape {tuple(x.shape)}; expected [N, 1, 28, 28]: "
                "add the channel axis with images.unsqueeze(1), or resize to 28x28"
            )
        x = self.edges(x)  # 28x28, receptive field 3, then 5
        x = self.squeeze_1(self.pool(x))  # 28x28 -> 14x14, receptive field 6
        x = self.middle(x)  # 14 -> 12 -> 10, receptive field 10, then 14
        x = self.squeeze_2(x)  # 10x10, receptive field 14
        x = self.late(x)  # 10 -> 8 -> 6, receptive field 18, then 22
        x = self.head(x)  # 6x6 -> 1x1, receptive field 32: the whole image
        return F.log_softmax(x.flatten(1), dim=1)


EVERY_3X3 = (1, 2, 3, 4, 5, 6)

MODELS: dict[int, NetworkConfig] = {}
# Step 1, skeleton: get the structure right, then narrow it.
MODELS[1] = NetworkConfig((16, 32), 16, (32, 64), 16, (32, 64))
MODELS[2] = replace(
    MODELS[1], edges=(16, 20), squeeze_1=10, middle=(12, 16), squeeze_2=10, late=(12, 16)
)
MODELS[3] = replace(MODELS[2], edges=(10, 12), squeeze_2=8, late=(10, 10))
# Step 2, efficiency. Entries 4, 5 and 7 bundle what the original changed together (notebook 2).
MODELS[4] = replace(MODELS[3], middle=(10, 12), batch_norm=EVERY_3X3)
MODELS[5] = replace(MODELS[4], batch_norm=(1, 2, 3, 4, 6), dropout=0.01)
MODELS[6] = replace(MODELS[5], head="gap")
MODELS[7] = replace(MODELS[6], middle=(16, 16), late=(12, 12), batch_norm=EVERY_3X3)
# Step 3, augmentation and learning rate: 8 and 9 change the recipe, not the network.
MODELS[8] = replace(MODELS[7])
MODELS[9] = replace(MODELS[8])
MODELS[10] = replace(MODELS[9], middle=(12, 12), squeeze_2=10, late=(10, 12))


def build(model: int | NetworkConfig) -> Network:
    """A freshly initialised network: a number from `MODELS`, or a config of your own.

    Raises:
        ValueError: if the number is not in `MODELS`.
    """
    return Network(model if isinstance(model, NetworkConfig) else model_config(model))


def model_config(model: int) -> NetworkConfig:
    """The config of a numbered network.

    Raises:
        ValueError: if the number is not in `MODELS`.
    """
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; the models are {', '.join(map(str, MODELS))}")
    return MODELS[model]


def changes(model: int) -> dict[str, tuple]:
    """What model `model` changed against its predecessor: {field: (before, after)}."""
    before, after = vars(model_config(model - 1)), vars(model_config(model))
    return {name: (before[name], after[name]) for name in after if before[name] != after[name]}
