"""Learning curves: a thin line per seed, a thick line for their mean."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from utils.figures import BLACK, BLUE, GREY, ORANGE, panels
from utils.training import EpochRow

History = Sequence[EpochRow]  # of one run
SPLITS = {"train": ORANGE, "test": BLUE}
LOSS_TICKS = 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01  # nats


def curves(
    histories: list[History], title: str, before: list[History], before_label: str, target: float
) -> Figure:
    """Loss (left) and accuracy (right) of training and test images over the epochs.

    There is one history per seed, all of the same number of epochs. The mean of the runs `before`,
    if any, is grey; a dashed line marks `target`, an accuracy in percent.
    """
    alt = f"Loss and accuracy over the epochs, {len(histories)} seeds, train and test"
    figure, axes = panels(1, 2, (8, 3.6), title, alt)
    for axis, kind in zip(axes[0], ("loss", "accuracy"), strict=True):
        if before:
            _mean_line(axis, before, f"test_{kind}", GREY, before_label)
        for split, colour in SPLITS.items():
            for history in histories:
                values = [getattr(row, f"{split}_{kind}") for row in history]
                axis.plot(range(1, len(values) + 1), values, color=colour, alpha=0.35, lw=0.8)
            _mean_line(axis, histories, f"{split}_{kind}", colour, split)
        axis.set(xlabel="epoch", xticks=[1, *range(5, len(histories[0]) + 1, 5)])
    losses = [loss for h in histories for row in h for loss in (row.train_loss, row.test_loss)]
    axes[0, 0].set(ylabel="loss, nats", yscale="log")
    axes[0, 0].set_yticks(LOSS_TICKS, map(str, LOSS_TICKS))
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylim(min(losses) * 0.9, max(losses) * 1.1)
    axes[0, 0].legend(frameon=False)
    last = min(min(h[-1].test_accuracy, h[-1].train_accuracy) for h in histories)
    bottom = min(98, math.floor(last))  # early epochs may be clipped, the last never
    axes[0, 1].set(ylabel=f"accuracy, % (axis from {bottom})", ylim=(bottom, 100))
    target_line(axes[0, 1], target)
    return figure


def _mean_line(axis, histories: list[History], field: str, colour: str, label: str) -> None:
    epochs = zip(*histories, strict=True)
    means = [sum(getattr(row, field) for row in rows) / len(histories) for rows in epochs]
    marker = "o" if len(means) < 3 else None
    axis.plot(range(1, len(means) + 1), means, color=colour, label=label, lw=2.2, marker=marker)


def target_line(axis, accuracy: float) -> None:
    """A dashed horizontal line at the test accuracy to reach, in percent."""
    axis.axhline(accuracy, color=BLACK, linestyle="--", linewidth=1)
    style = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 10}
    axis.annotate(f"brief:\n{accuracy} %", (1, accuracy), (4, 0), va="center", **style)
