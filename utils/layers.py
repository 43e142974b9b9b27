"""The layers of a network: torchinfo's counts, the receptive field, and the count by hand."""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torchinfo import summary
from torchinfo.layer_info import LayerInfo

from models import IMAGE_SIZE, Config, build


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, with the layers without parameters that follow it."""

    layer: str
    output: tuple[int, ...]  # [C, H, W]
    receptive_field: int  # pixels
    formula: str  # of the parameters, such as "3·3·10·12"; "" for none
    parameters: int  # as torchinfo counts them
    multiplications: int = 0  # multiply-accumulates of a convolution for one image, by torchinfo

    @property
    def by_hand(self) -> int:
        """The parameters by the formula."""
        terms = filter(None, self.formula.split(" + "))
        return sum(math.prod(map(int, term.split("·"))) for term in terms)

    @property
    def spatial(self) -> bool:
        """Whether it is a convolution, a pool or a gate: what a diagram shows as a block."""
        return self.layer.startswith(("conv", "depthwise", "max", "average", "gate"))

    def followed_by(self, after: "LayerRow") -> "LayerRow":
        """A row with the layers and parameters of the next one added."""
        formula = " + ".join(filter(None, (self.formula, after.formula)))
        layer, parameters = f"{self.layer}, {after.layer}", self.parameters + after.parameters
        return replace(self, layer=layer, formula=formula, parameters=parameters)


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
    for info in (info for info in counted.summary_list if info.is_leaf_layer):
        kernel, stride = _window(info)
        field, jump = field + (kernel - 1) * jump, jump * stride
        layer, shape = info.module, tuple(info.output_size[1:])
        work = info.macs if isinstance(layer, nn.Conv2d) else 0
        row = LayerRow(_name(layer), shape, field, _formula(layer), info.num_params, work)
        if rows and not (row.parameters or row.spatial):
            row = rows.pop().followed_by(row)
        rows.append(row)
    return rows


def _window(info: LayerInfo) -> tuple[int, int]:
    """Kernel size and stride of a layer; 1 and 1 if it works on single pixels."""
    layer = info.module
    if isinstance(layer, nn.AdaptiveAvgPool2d):  # of a gate: it averages its whole input
        return info.input_size[-1], 1
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return 1, 1
    return tuple(v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride))


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
    learned = isinstance(layer, nn.BatchNorm2d) and layer.affine
    return f"2·{layer.num_features}" if learned else ""
