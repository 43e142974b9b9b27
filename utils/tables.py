"""Every table: layers with receptive fields, parameters by hand, results beside the published."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from models import Config, SeparableConfig, build
from utils.analysis import (
    best_test,
    brief_met,
    final_gap,
    final_test,
    final_train,
    lowest_of_last,
    verdict,
)
from utils.data import CANONICAL_CHECKSUM
from utils.recipes import PUBLISHED, Published
from utils.records import Record


def markdown(columns: Iterable[str], rows: Iterable[Iterable], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned left, the others right."""
    columns = list(columns)
    rule = ["---"] * left + ["--:"] * (len(columns) - left)
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, with the layers without parameters that follow it."""

    layer: str
    output: tuple[int, ...]  # [C, H, W], or [10, 1, 1] at the end
    receptive_field: int  # pixels
    formula: str  # parameters by hand, "" for none
    parameters: int  # as PyTorch counts them
    multiplications: int = 0  # multiply-accumulates for one image

    @property
    def spatial(self) -> bool:
        """Whether it looks at space or mixes channels, and does not merely work on each value."""
        return self.layer.startswith(("conv", "depthwise", "max", "average"))

    def followed_by(self, after: "LayerRow") -> "LayerRow":
        """The row that has the next one's layers and parameters in it, too."""
        return replace(
            self,
            layer=f"{self.layer}, {after.layer}",
            parameters=self.parameters + after.parameters,
        )


def layer_rows(config: Config) -> list[LayerRow]:
    """The layers of a network in the order data passes them, with receptive field and formula.

    The receptive field grows by (kernel - 1) * jump at each layer, and the jump, the distance in
    input pixels between neighbouring outputs, multiplies by the stride (Dumoulin and Visin, 2016).
    """
    rows: list[LayerRow] = []
    field = jump = 1

    def visit(layer: nn.Module, _, output: torch.Tensor) -> None:
        nonlocal field, jump
        kernel, stride = _window(layer)
        field, jump = field + (kernel - 1) * jump, jump * stride
        count = sum(parameter.numel() for parameter in layer.parameters())
        work = output[0, 0].numel() * layer.weight.numel() if isinstance(layer, nn.Conv2d) else 0
        shape = tuple(output.shape[1:])
        row = LayerRow(_name(layer), shape, field, _formula(layer), count, work)
        if rows and not (count or row.spatial):
            row = rows.pop().followed_by(row)
        rows.append(row)

    with torch.device("meta"):  # shapes alone: nothing is computed, no random number drawn
        network = build(config)
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(visit)
        network(torch.empty(2, 1, 28, 28))
    return rows


def _window(layer: nn.Module) -> tuple[int, int]:
    """Kernel size and stride of a layer; 1 and 1 if it looks at single pixels."""
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
    channel, a gate two matrices and two biases, and nothing else here has any.
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


def layer_table(config: Config) -> str:
    """Markdown: layer, output shape, receptive field, parameters by hand and counted, work."""
    found = layer_rows(config)
    rows = [
        (
            row.layer,
            "x".join(map(str, row.output)),
            row.receptive_field,
            row.formula,
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.multiplications:,}" if row.multiplications else "",
        )
        for row in found
    ]
    total, work = (sum(getattr(row, n) for row in found) for n in ("parameters", "multiplications"))
    totals = (f"**{number:,}**" for number in (hand_count(config), total, work))
    rows.append(("**total**", "", "", *totals))
    columns = ("layer", "output", "receptive field", "by hand", "parameters", "multiplications")
    return markdown(columns, rows, left=2)


def results(runs: list[Record]) -> str:
    """Markdown: one model's results over its seeds, beside the published figures."""
    published, quoted = _published(runs), ("", "", "")
    if published:
        quoted = (
            f"{published.parameters:,}",
            f"{published.train_accuracy:.2f} % ({published.train_epoch})",
            f"{published.test_accuracy:.2f} % ({published.test_epoch})",
        )
    rows = [
        ("parameters", f"{runs[0].parameters:,}", quoted[0]),
        ("train accuracy", final_train(runs), quoted[1]),
        ("**test accuracy**", f"**{final_test(runs)}**", ""),
        ("test accuracy of the best epoch, to compare", best_test(runs), quoted[2]),
        ("train - test", final_gap(runs), ""),
        ("lowest test accuracy of a run's last five epochs", lowest_of_last(runs), ""),
        ("runs that meet the brief (95 % interval of the share)", brief_met(runs), ""),
    ]
    ours, theirs = "here: mean ± SD over seeds, final epoch", "published: best epoch, one seed"
    columns = ("figure", ours, theirs)
    shown = 3 if published else 2
    return markdown(columns[:shown], [row[:shown] for row in rows])


def ladder_table(ladder: dict[str, list[Record]]) -> str:
    """Markdown: one line per experiment, {name: its runs}, in the order of the study."""
    rows = []
    for name, runs in ladder.items():
        published = _published(runs)
        rows.append(
            (
                name,
                f"{runs[0].parameters:,}",
                final_train(runs).short(),
                final_test(runs).short(),
                len(runs),
                f"{min(verdict(run).worst_of_last for run in runs):.2f}",
                f"{published.test_accuracy:.2f}" if published else "",
                brief_met(runs),
            )
        )
    columns = ("model", "parameters", "train %", "test %", "seeds", "lowest of any run",
               "published %", "brief met")  # fmt: skip
    return markdown(columns, rows)


def _published(runs: list[Record]) -> Published | None:
    """The published figures, if the runs are of one of the ten as it stands, on MNIST."""
    name, on_mnist = runs[0].run.name, runs[0].data_checksum == CANONICAL_CHECKSUM
    return PUBLISHED[int(name)] if name.isdigit() and on_mnist else None


def replication_table(pairs: dict[int, tuple[list[Record], list[Record]]]) -> str:
    """Markdown: each published figure beside the best epochs of our runs by the original's recipe.

    Args:
        pairs: {model: (runs by the original's code, runs by its description alone)}.
    """
    if not pairs:
        return "*Three seeds or more of these are not recorded yet.*"
    rows = []
    for model, (replicated, described) in pairs.items():
        quoted = PUBLISHED[model].test_accuracy
        best = best_test(replicated)
        within = min(best.values) <= quoted <= max(best.values)
        rows.append(
            (
                model,
                f"{quoted:.2f}",
                f"{best.short()} ({min(best.values):.2f} to {max(best.values):.2f})",
                best.n,
                "inside" if within else f"{'above' if quoted > best.mean else 'below'} ours",
                f"{best_test(described).short()}",
                f"{final_test(described).short()}",
            )
        )
    columns = ("model", "published best %", "our best epochs, its recipe %", "seeds",
               "published lies", "best, as described %", "final, as described %")  # fmt: skip
    return markdown(columns, rows)


def brief_table(groups: dict[str, list[Record]]) -> str:
    """Markdown: how many runs of each experiment meet the brief, with an exact interval."""
    rows = []
    for name, runs in groups.items():
        rows.append(
            (
                name,
                f"{runs[0].parameters:,}",
                len(runs[0].history),
                final_test(runs),
                lowest_of_last(runs).short(),
                brief_met(runs),
            )
        )
    columns = ("experiment", "parameters", "epochs", "final test accuracy", "lowest of last five %",
               "meet the brief (95 % interval)")  # fmt: skip
    return markdown(columns, rows)
