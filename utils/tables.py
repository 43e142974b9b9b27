"""Every table: layers with receptive fields, parameters by hand, results beside the published."""

import statistics
from dataclasses import asdict, dataclass

import torch
import torchinfo
from torch import nn

from models import MODELS, NetworkConfig, build, changes
from utils.analysis import (
    best_test,
    final_gap,
    final_test,
    final_train,
    runs_meeting_brief,
    spread,
    verdict,
)
from utils.experiments import RECIPES, get_experiment, recipe_changes
from utils.layers import BatchNormAct2d
from utils.published import PUBLISHED
from utils.records import Record


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network."""

    layer: str
    output: tuple[int, ...]  # [C, H, W], or [10] at the end
    receptive_field: int  # pixels
    formula: str  # parameters by hand, "" for none
    parameters: int  # as torchinfo counts them


def layer_rows(config: NetworkConfig) -> list[LayerRow]:
    """The layers of a network in order, from torchinfo, with receptive field and hand formula.

    The receptive field grows by (kernel - 1) * jump at each layer, and the jump, the distance in
    input pixels between neighbouring outputs, multiplies by the stride (Dumoulin and Visin, 2016).
    """
    with torch.random.fork_rng(devices=[]):  # a table must not shift anybody's seeds
        network = build(config)
    # Given data: torchinfo's own random input would advance the global generator.
    summary = torchinfo.summary(network, input_data=torch.zeros(1, 1, 28, 28), verbose=0)
    rows, field, jump = [], 1, 1
    for info in summary.summary_list:
        if not info.is_leaf_layer:
            continue
        kernel, stride = _window(info.module)
        field, jump = field + (kernel - 1) * jump, jump * stride
        rows.append(
            LayerRow(
                _name(info.module),
                tuple(info.output_size[1:]),
                field,
                _formula(info.module),
                info.num_params,
            )
        )
    return rows


def _window(layer: nn.Module) -> tuple[int, int]:
    """Kernel size and stride of a layer; 1 and 1 if it looks at single pixels."""
    first = [v[0] if isinstance(v, tuple) else v for v in _kernel_and_stride(layer)]
    return first[0], first[1]


def _kernel_and_stride(layer: nn.Module):
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return layer.kernel_size, layer.stride
    return 1, 1


def _name(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        size, padding = layer.kernel_size[0], layer.padding[0]
        return f"conv {size}x{size}" + (f", padding {padding}" if padding else "")
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(layer, nn.MaxPool2d) else "average"
        return f"{kind} pool {layer.kernel_size}x{layer.kernel_size}"
    dropout = f", dropout {layer.p}" if getattr(layer, "p", 0) else ""
    return ("batch norm, ReLU" if isinstance(layer, BatchNormAct2d) else "ReLU") + dropout


def _formula(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        size = layer.kernel_size[0]
        return f"{size}·{size}·{layer.in_channels}·{layer.out_channels}"
    return f"2·{layer.num_features}" if isinstance(layer, BatchNormAct2d) else ""


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
    lines = [
        "| layer | output | receptive field | by hand | parameters |",
        "|---|---|--:|--:|--:|",
    ]
    rows = layer_rows(config)
    for row in rows:
        shape = "x".join(map(str, row.output))
        count = f"{row.parameters:,}" if row.parameters else ""
        lines.append(f"| {row.layer} | {shape} | {row.receptive_field} | {row.formula} | {count} |")
    total = sum(row.parameters for row in rows)
    lines.append(f"| **total** | | | **{hand_count(config):,}** | **{total:,}** |")
    return "\n".join(lines)


def print_changes(model: int) -> None:
    """Print the fields in which a model and its recipe differ from the predecessor's."""
    network = changes(model)
    before, after = (RECIPES[get_experiment(m).recipe] for m in (model - 1, model))
    recipe = recipe_changes(before, after)
    print(f"model {model} is model {model - 1} with")
    for kind, fields in (("network", network), ("recipe", recipe)):
        for name, (old, new) in fields.items():
            print(f"  {kind}.{name}: {old} -> {new}")
    count, previous = hand_count(MODELS[model]), hand_count(MODELS[model - 1])
    print(f"  parameters: {previous:,} -> {count:,} ({count - previous:+,})")


def print_settings(settings) -> None:
    """Print every field of a config or recipe."""
    for name, value in asdict(settings).items():
        print(f"{name} = {value}")


def results(runs: list[Record]) -> str:
    """Markdown: one model's results over its seeds, beside the published figures."""
    model = _model(runs)
    published = PUBLISHED.get(model)
    quoted = ("", "", "")
    if published:
        quoted = (
            f"{published.parameters:,}",
            f"{published.train_accuracy:.2f} % ({published.train_epoch})",
            f"{published.test_accuracy:.2f} % ({published.test_epoch})",
        )
    worst = spread([verdict(run).worst_of_last for run in runs])
    return "\n".join(
        [
            "| | here: mean ± SD over seeds, final epoch | published: best epoch, one seed |",
            "|---|--:|--:|",
            f"| parameters | {runs[0].parameters:,} | {quoted[0]} |",
            f"| train accuracy | {final_train(runs)} | {quoted[1]} |",
            f"| **test accuracy** | **{final_test(runs)}** | |",
            f"| test accuracy of the best epoch, to compare | {best_test(runs)} | {quoted[2]} |",
            f"| train - test | {final_gap(runs)} | |",
            f"| lowest test accuracy of a run's last five epochs | {worst} | |",
            f"| runs that meet the brief | {runs_meeting_brief(runs)} of {len(runs)} | |",
        ]
    )


def ladder_table(ladder: dict[str, list[Record]]) -> str:
    """Markdown: one line per experiment, {name: its runs}, in the order of the study."""
    lines = [
        "| model | parameters | train % | test % | seeds | lowest of last 5 | published % "
        "| brief met |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in ladder.items():
        train, test = final_train(runs), final_test(runs)
        worst = min(verdict(run).worst_of_last for run in runs)
        published = PUBLISHED.get(_model(runs)) if name.isdigit() else None
        quoted = f"{published.test_accuracy:.2f}" if published else ""
        lines.append(
            f"| {name} | {runs[0].parameters:,} | {_short(train)} | {_short(test)} | {test.n} "
            f"| {worst:.2f} | {quoted} | {runs_meeting_brief(runs)} of {len(runs)} |"
        )
    return "\n".join(lines)


def _short(figure) -> str:
    return f"{figure.mean:.2f}" + (f" ± {figure.sd:.2f}" if figure.sd is not None else "")


def _model(runs: list[Record]) -> int:
    return int(runs[0].label.split("-")[0])


def search_table(scores: dict[str, dict[int, list[float]]], chosen: str) -> str:
    """Markdown: what the search tried; mean validation accuracy of the last five epochs, %."""
    models = list(next(iter(scores.values())))
    heads = [f"model {model}, seed {seed}" for model in models for seed in (0, 1)]
    lines = ["| candidate | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for name, by_model in scores.items():
        values = [value for model in models for value in (by_model[model] + [None, None])[:2]]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        label = f"**{name}** (chosen)" if name == chosen else name
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_table(scores: dict[str, list[float]], bar: float, chosen: str) -> str:
    """Markdown: the short recipes; final validation accuracy of each seed, %, against the bar."""
    seeds = range(max(map(len, scores.values())))
    lines = [
        "| candidate | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | bar |",
        "|---|" + "--:|" * (len(seeds) + 2),
    ]
    for name, values in scores.items():
        label = f"**{name}** (chosen)" if name == chosen else name
        figures = " | ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {label} | {figures} | {statistics.mean(values):.2f} | {bar:.2f} |")
    return "\n".join(lines)
