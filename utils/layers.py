"""The layers of a network: torchinfo's counts, the receptive field, and the count by hand."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torchinfo import summary
from torchinfo.layer_info import LayerInfo

from models import IMAGE_SIZE, Config, SeparableConfig, build


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, with the layers without parameters that follow it."""

    layer: str
    output: tuple[int, ...]  # [C, H, W]
    receptive_field: int  # pixels
    formula: str  # parameters by hand, "" for none
    parameters: int  # as torchinfo counts them
    multiplications: int = 0  # multiply-accumulates of a convolution for one image, by torchinfo

    @property
    def spatial(self) -> bool:
        """Whether it is a convolution or a pool: what a diagram shows as a block."""
        return self.layer.startswith(("conv", "depthwise", "max", "average", "gate"))

    def followed_by(self, after: "LayerRow") -> "LayerRow":
        """A row with the layers and parameters of the next one added."""
        return replace(
            self,
            layer=f"{self.layer}, {after.layer}",
            parameters=self.parameters + after.parameters,
        )


def layer_rows(config: Config) -> list[LayerRow]:
    """The layers of a network in the order of the forward pass.

    The receptive field grows by (kernel - 1) * jump at each layer, and the jump, the distance in
    input pixels between neighbouring outputs, multiplies by the stride (Dumoulin and Visin, 2016).
    """
    with torch.device("meta"):  # shapes alone: nothing is computed, no random number drawn
        image = torch.empty(1, 1, IMAGE_SIZE, IMAGE_SIZE)
        counted = summary(build(config), input_data=image, device="meta", depth=9, verbose=0)
    rows: list[LayerRow] = []
    field = jump = 1
    for info in counted.summary_list:
        if not info.is_leaf_layer:
            continue
        kernel, stride = _window(info)
        field, jump = field + (kernel - 1) * jump, jump * stride
        work = info.macs if isinstance(info.module, nn.Conv2d) else 0
        shape = tuple(info.output_size[1:])
        row = LayerRow(
            _name(info.module), shape, field, _formula(info.module), info.num_params, work
        )
        if rows and not (row.parameters or row.spatial):
            row = rows.pop().followed_by(row)
        rows.append(row)
    return rows


def _window(info: LayerInfo) -> tuple[int, int]:
    """Kernel size and stride of a layer; 1 and 1 if it works on single pixels."""
    layer = info.module
    if isinstance(layer, nn.AdaptiveAvgPool2d):  # a gate's: it sees its whole input, and scales it
        return info.input_size[-1], 1
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return 1, 1
    both = layer.kernel_size, layer.stride
    return tuple(value[0] if isinstance(value, tuple) else value for value in both)


def _name(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d():
            size, padding = layer.kernel_size[0], layer.padding[0]
            kind = "depthwise" if layer.groups > 1 else "conv"
            return f"{kind} {size}x{size}" + (f", padding {padding}" if padding else "")
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(layer, nn.MaxPool2d) else "average"
            return f"{kind} pool {layer.kernel_size}x{layer.kernel_size}"
        case nn.AdaptiveAvgPool2d():
            return "gate: average of a channel"
        case nn.Dropout():
            return f"dropout {layer.p}"
    return "batch norm" if isinstance(layer, nn.BatchNorm2d) else type(layer).__name__


def _formula(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        size, inputs = layer.kernel_size[0], layer.in_channels // layer.groups
        biases = f" + {layer.out_channels}" if layer.bias is not None else ""
        return f"{size}·{size}·{inputs}·{layer.out_channels}{biases}"
    return f"2·{layer.num_features}" if isinstance(layer, nn.BatchNorm2d) else ""


def hand_count(config: Config) -> int:
    """Trainable parameters by formula from the config alone; PyTorch is not asked.

    A k x k convolution without bias has k * k * inputs * outputs weights, a batch norm two per
    channel, a gate two matrices and two biases. No other layer has parameters.
    """
    if isinstance(config, SeparableConfig):
        return _hand_count_separable(config)
    (e1, e2), (m1, m2), (l1, l2) = config.edges, config.middle, config.late
    channels = [1, e1, e2, config.squeeze_1, m1, m2, config.squeeze_2, l1, l2]
    kernels = [3, 3, 1, 3, 3, 1, 3, 3]
    convolutions = sum(
        k * k * i * o for k, i, o in zip(kernels, channels[:-1], channels[1:], strict=True)
    )
    head = (6 * 6 if config.head == "conv6x6" else 1) * l2 * 10
    normalised = [(e1, e2, m1, m2, l1, l2)[index - 1] for index in config.batch_norm]
    inside = config.squeeze_excitation
    gates = sum(2 * c * inside + inside + c for c in (e2, m2, l2)) if inside else 0
    return convolutions + head + 2 * sum(normalised) + gates


def _hand_count_separable(config: SeparableConfig) -> int:
    first, count = config.channels[0], 11 * config.channels[0] + 10 * config.channels[-1]
    for outputs, blocks in zip(config.channels, config.blocks, strict=True):
        for inputs in ([first] + [outputs] * blocks)[:blocks]:
            count += (11 if config.inner_norm else 9) * inputs + inputs * outputs + 2 * outputs
        first = outputs
    return count
