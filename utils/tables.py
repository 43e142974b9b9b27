"""Every table: layers with receptive fields, parameters by hand, results beside the published."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from models import MODELS, NetworkConfig, build
from utils.analysis import (
    best_test,
    final_gap,
    final_test,
    final_train,
    runs_meeting_brief,
    spread,
    verdict,
)
from utils.experiments import get_experiment
from utils.recipes import PUBLISHED, Published, changes
from utils.records import Record


def markdown(columns: Iterable[str], rows: Iterable[Iterable], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned left, the others right."""
    columns = list(columns)
    rule = ["---"] * left + ["--:"] * (len(columns) - left)
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, with the batch norm, ReLU and dropout that follow it in a row."""

    layer: str
    output: tuple[int, ...]  # [C, H, W], or [10, 1, 1] at the end
    receptive_field: int  # pixels
    formula: str  # parameters by hand, "" for none
    parameters: int  # as PyTorch counts them


def layer_rows(config: NetworkConfig) -> list[LayerRow]:
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
        row = LayerRow(_name(layer), tuple(output.shape[1:]), field, _formula(layer), count)
        if rows and isinstance(layer, nn.ReLU | nn.Dropout) and not _spatial(rows[-1].layer):
            last = rows.pop()
            row = replace(last, layer=f"{last.layer}, {row.layer}")
        rows.append(row)

    with torch.device("meta"):  # shapes alone: nothing is computed, no random number drawn
        network = build(config)
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(visit)
        network(torch.empty(2, 1, 28, 28))
    return rows


def _spatial(name: str) -> bool:
    return name.startswith(("conv", "max", "average"))


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
            return f"conv {size}x{size}" + (f", padding {padding}" if padding else "")
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(layer, nn.MaxPool2d) else "average"
            return f"{kind} pool {layer.kernel_size}x{layer.kernel_size}"
        case nn.Dropout():
            return f"dropout {layer.p}"
    return "batch norm" if isinstance(layer, nn.BatchNorm2d) else type(layer).__name__


def _formula(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        size = layer.kernel_size[0]
        return f"{size}·{size}·{layer.in_channels}·{layer.out_channels}"
    return f"2·{layer.num_features}" if isinstance(layer, nn.BatchNorm2d) else ""


def hand_count(config: NetworkConfig) -> int:
    """Trainable parameters by formula from the config alone; PyTorch is not asked.

    A k x k convolution without bias has k * k * inputs * outputs weights, a batch norm two per
    channel, and nothing else here has any.
    """
    (e1, e2), (m1, m2), (l1, l2) = config.edges, config.middle, config.late
    channels = [1, e1, e2, config.squeeze_1, m1, m2, config.squeeze_2, l1, l2]
    kernels = [3, 3, 1, 3, 3, 1, 3, 3]
    convolutions = sum(
        k * k * i * o for k, i, o in zip(kernels, channels[:-1], channels[1:], strict=True)
    )
    head = (6 * 6 if config.head == "conv6x6" else 1) * l2 * 10
    normalised = [(e1, e2, m1, m2, l1, l2)[index - 1] for index in config.batch_norm]
    return convolutions + head + 2 * sum(normalised)


def layer_table(config: NetworkConfig) -> str:
    """Markdown: layer, output shape, receptive field, parameters by hand and as counted."""
    found = layer_rows(config)
    rows = [
        (
            row.layer,
            "x".join(map(str, row.output)),
            row.receptive_field,
            row.formula,
            f"{row.parameters:,}" if row.parameters else "",
        )
        for row in found
    ]
    total = sum(row.parameters for row in found)
    rows.append(("**total**", "", "", f"**{hand_count(config):,}**", f"**{total:,}**"))
    columns = ("layer", "output", "receptive field", "by hand", "parameters")
    return markdown(columns, rows, left=2)


def print_changes(model: int) -> None:
    """Print the fields in which a model and its recipe differ from the predecessor's."""
    before, after = (get_experiment(m) for m in (model - 1, model))
    print(f"model {model} is model {model - 1} with")
    for kind, old, new in (
        ("network", before.config, after.config),
        ("recipe", before.recipe, after.recipe),
    ):
        for name, (was, now) in changes(old, new).items():
            print(f"  {kind}.{name}: {was} -> {now}")
    count, previous = hand_count(MODELS[model]), hand_count(MODELS[model - 1])
    print(f"  parameters: {previous:,} -> {count:,} ({count - previous:+,})")


def results(runs: list[Record]) -> str:
    """Markdown: one model's results over its seeds, beside the published figures."""
    published, quoted = _published(runs), ("", "", "")
    if published:
        quoted = (
            f"{published.parameters:,}",
            f"{published.train_accuracy:.2f} % ({published.train_epoch})",
            f"{published.test_accuracy:.2f} % ({published.test_epoch})",
        )
    worst = spread([verdict(run).worst_of_last for run in runs])
    rows = [
        ("parameters", f"{runs[0].parameters:,}", quoted[0]),
        ("train accuracy", final_train(runs), quoted[1]),
        ("**test accuracy**", f"**{final_test(runs)}**", ""),
        ("test accuracy of the best epoch, to compare", best_test(runs), quoted[2]),
        ("train - test", final_gap(runs), ""),
        ("lowest test accuracy of a run's last five epochs", worst, ""),
        ("runs that meet the brief", f"{runs_meeting_brief(runs)} of {len(runs)}", ""),
    ]
    ours = "here: mean ± SD over seeds, final epoch"
    return markdown(("", ours, "published: best epoch, one seed"), rows)


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
                f"{runs_meeting_brief(runs)} of {len(runs)}",
            )
        )
    columns = ("model", "parameters", "train %", "test %", "seeds", "lowest of last 5",
               "published %", "brief met")  # fmt: skip
    return markdown(columns, rows)


def _published(runs: list[Record]) -> Published | None:
    """The published figures, if the runs are of one of the ten as it stands."""
    name = runs[0].run.name
    return PUBLISHED[int(name)] if name.isdigit() else None


def search_table(scores: dict[str, dict[int, list[float]]], chosen: str) -> str:
    """Markdown: what the search tried; mean validation accuracy of the last five epochs, %."""
    models = list(next(iter(scores.values())))
    rows = []
    for name, by_model in scores.items():
        values = [value for model in models for value in (by_model[model] + [None, None])[:2]]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        rows.append((_marked(name, chosen), *cells))
    heads = [f"model {model}, seed {seed}, %" for model in models for seed in (0, 1)]
    return markdown(("candidate", *heads), rows)


def short_table(scores: dict[str, list[float]], bar: float, chosen: str) -> str:
    """Markdown: the short recipes; final validation accuracy of each seed, %, against the bar."""
    rows = [
        (
            _marked(name, chosen),
            *(f"{value:.2f}" for value in values),
            f"{statistics.mean(values):.2f}",
            f"{bar:.2f}",
        )
        for name, values in scores.items()
    ]
    seeds = range(max(map(len, scores.values())))
    heads = [f"seed {seed}, %" for seed in seeds]
    return markdown(("candidate", *heads, "mean, %", "bar, %"), rows)


def _marked(name: str, chosen: str) -> str:
    return f"**{name}** (chosen)" if name == chosen else name
