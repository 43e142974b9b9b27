"""The ten networks of the study in plain PyTorch: one frozen config, one body, ten deltas.

Every entry of `MODELS` is the previous one with a few fields changed, so that a reader compares
two lines instead of two classes; 8 and 9 change only the training. All ten read [N, 1, 28, 28]
images and return [N, 10] log-probabilities. Beyond the ten there is a second body,
`SeparableNetwork`. This file imports nothing of the project: copy it into your own.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
IMAGE_SIZE = 28  # pixels, height and width
EVERY_3X3 = (1, 2, 3, 4, 5, 6)  # the 3x3 convolutions, numbered in order
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}
_KNOWN = f"one of {', '.join(ACTIVATIONS)}"


@dataclass(frozen=True)
class NetworkConfig:
    """What distinguishes one network from another; channel counts are output channels.

    A field outside its range raises a ValueError that names it; so does `SeparableConfig`.
    """

    edges: tuple[int, int]  # the two 3x3 convolutions at 28x28, where edges are found
    squeeze_1: int  # the 1x1 convolution after the pool, at 14x14
    middle: tuple[int, int]  # two unpadded 3x3 convolutions, 14 -> 12 -> 10
    squeeze_2: int  # the 1x1 convolution at 10x10
    late: tuple[int, int]  # two unpadded 3x3 convolutions, 10 -> 8 -> 6
    head: str = "conv6x6"  # "conv6x6": one big convolution; "gap": 6x6 average pool, then 1x1
    batch_norm: tuple[int, ...] = ()  # which of the 3x3 convolutions 1..6 it follows
    dropout: float = 0.0  # probability per element, after each 3x3 convolution but the last
    # Other experiments than the ten set these.
    activation: str = "relu"  # or "silu" or "hardswish", after every convolution but the head's
    squeeze_excitation: int = 0  # hidden channels of a gate after each pair of 3x3s; 0 for none

    def __post_init__(self):
        pairs, normed = ("edges", "middle", "late"), self.batch_norm
        for name in (*pairs, "squeeze_1", "squeeze_2"):
            _check_counts(self, name, 2 if name in pairs else None)
        _check_counts(self, "squeeze_excitation", None, least=0)
        _check(self, "head", self.head in ("conv6x6", "gap"), "'conv6x6' or 'gap'")
        ordered = isinstance(normed, tuple) and all(type(index) is int for index in normed)
        ordered = ordered and normed == tuple(sorted(set(normed) & set(EVERY_3X3)))
        _check(self, "batch_norm", ordered, "a tuple of some of 1 to 6, in order")
        within = type(self.dropout) in (int, float) and 0 <= self.dropout < 1
        _check(self, "dropout", within, "in [0, 1)")
        _check(self, "activation", self.activation in list(ACTIVATIONS), _KNOWN)


def _check(config: object, name: str, holds: bool, wanted: str) -> None:
    if not holds:
        given = " ".join(repr(getattr(config, name)).split())[:60]
        raise ValueError(f"config: {name} must be {wanted}, not {given}")


def _check_counts(config: object, name: str, number: int | None, least: int = 1) -> None:
    """Raise unless a field is a whole number, or a tuple of so many, of at least so much."""
    counts = getattr(config, name) if number else (getattr(config, name),)
    holds = isinstance(counts, tuple) and len(counts) == (number or 1)
    holds = holds and all(type(count) is int and count >= least for count in counts)
    wanted = f"a tuple of {number} whole numbers" if number else "a whole number"
    _check(config, name, holds, f"{wanted} of {least} or more")


class Network(nn.Module):
    """The one body that all ten networks share.

    Source: the layer plan of the study re-done here (see README), with batch norm before ReLU.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.edges = self._stage(1, 1, *config.edges)
        self.pool = nn.MaxPool2d(2)
        self.squeeze_1 = self._squeeze(config.edges[1], config.squeeze_1)
        self.middle = self._stage(3, config.squeeze_1, *config.middle)
        self.squeeze_2 = self._squeeze(config.middle[1], config.squeeze_2)
        self.late = self._stage(5, config.squeeze_2, *config.late)
        pool, size = ([nn.AvgPool2d(6)], 1) if config.head == "gap" else ([], 6)
        self.head = nn.Sequential(*pool, nn.Conv2d(config.late[1], CLASSES, size, bias=False))

    def _stage(self, index: int, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        """Two 3x3 convolutions, the first with number `index`, each with what follows it."""
        layers = self._conv3x3(index, inputs, hidden) | self._conv3x3(index + 1, hidden, outputs)
        return nn.Sequential(OrderedDict(layers | self._gate(outputs)))

    def _squeeze(self, inputs: int, outputs: int) -> nn.Sequential:
        activation = ACTIVATIONS[self.config.activation]()
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), activation)

    def _conv3x3(self, index: int, inputs: int, outputs: int) -> dict[str, nn.Module]:
        """The 3x3 convolution number `index` (1..6) with what follows it in this config."""
        padding = 1 if index <= 2 else 0
        convolution = nn.Conv2d(inputs, outputs, 3, padding=padding, bias=False)
        layers: dict[str, nn.Module] = {f"conv{index}": convolution}
        if index in self.config.batch_norm:
            layers[f"norm{index}"] = nn.BatchNorm2d(outputs)
        layers[f"{self.config.activation}{index}"] = ACTIVATIONS[self.config.activation]()
        if self.config.dropout and index < 6:
            layers[f"drop{index}"] = nn.Dropout(self.config.dropout)
        return layers

    def _gate(self, channels: int) -> dict[str, nn.Module]:
        """A factor in 0..1 for every channel, from the channels' means over the image.

        Source: Hu, Shen and Sun, Squeeze-and-Excitation Networks, 2018.
        """
        if not self.config.squeeze_excitation:
            return {}
        from torchvision.ops import SqueezeExcitation  # the one thing here beyond torch

        return {"gate": SqueezeExcitation(channels, self.config.squeeze_excitation)}

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] normalised images -> [N, 10] log-probabilities, else a ValueError."""
        _check_shape(x)
        x = self.edges(x)  # 28x28, receptive field 3, then 5
        x = self.squeeze_1(self.pool(x))  # 28x28 -> 14x14, receptive field 6
        x = self.middle(x)  # 14 -> 12 -> 10, receptive field 10, then 14
        x = self.squeeze_2(x)  # 10x10, receptive field 14
        x = self.late(x)  # 10 -> 8 -> 6, receptive field 18, then 22
        x = self.head(x)  # 6x6 -> 1x1, receptive field 32: the whole image
        return F.log_softmax(x.flatten(1), dim=1)


def _check_shape(x: Tensor) -> None:
    if x.dim() != 4 or x.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
        mend = "add the channel axis with images.unsqueeze(1), or resize to 28x28"
        raise ValueError(f"images have shape {tuple(x.shape)}; expected [N, 1, 28, 28]: {mend}")


@dataclass(frozen=True)
class SeparableConfig:
    """What distinguishes one separable network from another."""

    channels: tuple[int, int, int]  # at 28x28, 14x14 and 7x7
    blocks: tuple[int, int, int] = (1, 3, 3)  # how many at each size
    activation: str = "silu"  # or "relu" or "hardswish"
    inner_norm: bool = True  # also batch norm between the depthwise and the 1x1 convolution
    inner_affine: bool = True  # with a factor and a summand; the convolutions around can do it
    skip: bool = False  # residual connection in blocks that keep the number of channels

    def __post_init__(self):
        _check_counts(self, "channels", 3)
        _check_counts(self, "blocks", 3, least=0)
        for name in ("inner_norm", "inner_affine", "skip"):
            _check(self, name, type(getattr(self, name)) is bool, "True or False")
        _check(self, "activation", self.activation in list(ACTIVATIONS), _KNOWN)
        steps = zip(self.channels[:1] + self.channels[:2], self.channels, self.blocks, strict=True)
        kept = all(count or before == after for before, after, count in steps)
        _check(self, "channels", kept, "the same before and after a size without blocks")


class Skip(nn.Sequential):
    """Layers whose output is added to their input.

    Source: He et al., Deep residual learning for image recognition, 2016.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        return x + super().forward(x)


class SeparableNetwork(nn.Module):
    """A body of depthwise-separable convolutions, which filter space and mix channels in turn.

    A 3x3 convolution from c to c channels has 9 c^2 weights. One 3x3 kernel for each channel and a
    1x1 convolution that mixes the channels have 9 c + c^2.
    Source: Howard et al., MobileNets, 2017, without an activation between the two.
    """

    def __init__(self, config: SeparableConfig):
        super().__init__()
        self.config = config
        widths, counts = config.channels, config.blocks
        activation = ACTIVATIONS[config.activation]
        first = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(widths[0]), activation())
        self.at_28 = self._stage(widths[0], widths[0], counts[0])
        self.pool_1 = nn.MaxPool2d(2)
        self.at_14 = self._stage(widths[0], widths[1], counts[1])
        self.pool_2 = nn.AvgPool2d(2)
        self.at_7 = self._stage(widths[1], widths[2], counts[2])
        self.head = nn.Sequential(nn.AvgPool2d(7), nn.Conv2d(widths[2], CLASSES, 1, bias=False))

    def _stage(self, inputs: int, outputs: int, count: int) -> nn.Sequential:
        widths = [inputs] + [outputs] * count
        return nn.Sequential(*map(self._block, widths[:-1], widths[1:]))

    def _block(self, inputs: int, outputs: int) -> nn.Sequential:
        """A depthwise 3x3 convolution, then a 1x1 convolution."""
        norm = nn.BatchNorm2d(inputs, affine=self.config.inner_affine)
        inner = [norm] if self.config.inner_norm else []
        kind = Skip if self.config.skip and inputs == outputs else nn.Sequential
        return kind(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            *inner,
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            ACTIVATIONS[self.config.activation](),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] normalised images -> [N, 10] log-probabilities, else a ValueError."""
        _check_shape(x)
        x = self.at_28(self.first(x))
        x = self.at_14(self.pool_1(x))
        x = self.at_7(self.pool_2(x))
        return F.log_softmax(self.head(x).flatten(1), dim=1)


MODELS: dict[int, NetworkConfig] = {}
# Step 1, skeleton: get the structure right, then narrow it.
MODELS[1] = NetworkConfig(
    edges=(16, 32), squeeze_1=16, middle=(32, 64), squeeze_2=16, late=(32, 64)
)
MODELS[2] = replace(
    MODELS[1], edges=(16, 20), squeeze_1=10, middle=(12, 16), squeeze_2=10, late=(12, 16)
)
MODELS[3] = replace(MODELS[2], edges=(10, 12), squeeze_2=8, late=(10, 10))
# Step 2, efficiency. Entries 4, 5 and 7 bundle what the original changed together (notebook 2).
MODELS[4] = replace(MODELS[3], middle=(10, 12), batch_norm=EVERY_3X3)
MODELS[5] = replace(MODELS[4], batch_norm=(1, 2, 3, 4, 6), dropout=0.01)
MODELS[6] = replace(MODELS[5], head="gap")
MODELS[7] = replace(MODELS[6], middle=(16, 16), late=(12, 12), batch_norm=EVERY_3X3)
# Step 3, augmentation and learning rate: 8 rotates the images; 9 rotates them further, and its
# learning rate starts higher and falls on a plateau. That stands in utils/recipes.py.
MODELS[8] = MODELS[7]
MODELS[9] = MODELS[8]
MODELS[10] = replace(MODELS[9], middle=(12, 12), squeeze_2=10, late=(10, 12))  # trained as 9 is

Config = NetworkConfig | SeparableConfig


def build(model: int | Config) -> Network | SeparableNetwork:
    """A fresh network: a number from `MODELS` (else a ValueError), or a config of your own."""
    kinds = {"NetworkConfig": Network, "SeparableConfig": SeparableNetwork}
    if kind := kinds.get(type(model).__name__):  # isinstance would fail after a reload of this file
        return kind(model)
    if isinstance(model, bool) or model not in list(MODELS):  # a list compares, a dict hashes
        raise ValueError(f"unknown model {model!r}; the models are {', '.join(map(str, MODELS))}")
    return Network(MODELS[model])
