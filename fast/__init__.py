"""The same results in less time; optional, and nothing here is needed to understand the study.

`fuse` swaps the layers of a plain network for compiled ones of the same numbers; `augmented_batch`
does the same for a batch of images. Where Numba is missing or cannot compile, `usable()` says so
once, and torch's own layers run. README.md has more.
"""

import contextlib
import ctypes
import functools
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

HUGE = 1e30  # larger coordinates would overflow where they are added up
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@functools.cache
def usable() -> bool:
    """Whether the compiled layers can run here; says why not, in one line, the first time."""
    try:
        from fast import kernels, layers

        folder = Path(kernels.relu_dropout.stats.cache_path or "")
        if not any(folder.glob("*.nbi")):
            print("compiling the fast layers, once: it takes up to a minute", file=sys.stderr)
        layers.ReLUDropout()(torch.ones(1, 1, 1, 1))
    except Exception as error:  # whatever ails an optional package, training goes on without it
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        instead = "torch's own layers run, with the same results up to rounding, but slower"
        print(f"Numba cannot be used here ({reason}): {instead}", file=sys.stderr)
        return False
    _keep_memory()
    return True


def _keep_memory() -> None:
    """Tell glibc's allocator to keep what is freed; other allocators are left alone.

    A step frees and takes the same megabytes again and again; where they go back to the system,
    page faults slow it down.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # bytes, the largest that every glibc accepts
        mallopt(M_TRIM_THRESHOLD, 2**30)


def fuse(network: nn.Module) -> nn.Module:
    """Swap compiled layers into every `nn.Sequential` of `network`, in place; returns it.

    BatchNorm2d [activation] [Dropout] and ReLU [Dropout] become one layer under the first one's
    name, so that the state dict stays the same; 2x2 max pools are swapped, too.
    """
    from fast import layers

    for stage in list(network.modules()):
        if isinstance(stage, nn.Sequential):
            _fuse_stage(stage, layers)
        for name, child in stage.named_children():
            if type(child) is nn.MaxPool2d and child.kernel_size == child.stride == 2:
                setattr(stage, name, layers.MaxPool2x2())
    return network


def _fuse_stage(stage: nn.Sequential, layers) -> None:
    for index in range(len(stage)):
        layer, p, activation = stage[index], 0.0, nn.Identity()
        if type(layer) is nn.BatchNorm2d:
            if index + 1 < len(stage) and type(stage[index + 1]) in layers.KINDS:
                p, activation = _take_dropout(stage, index + 2), stage[index + 1]
                stage[index + 1] = nn.Identity()
            stage[index] = layers.BatchNormAct2d.of(layer, p, activation)
        elif type(layer) is nn.ReLU:
            stage[index] = layers.ReLUDropout(_take_dropout(stage, index + 1))


def _take_dropout(stage: nn.Sequential, index: int) -> float:
    """Take the dropout at that place out of the stage; returns its probability, 0 if none."""
    if index >= len(stage) or type(stage[index]) is not nn.Dropout:
        return 0.0
    dropout, stage[index] = stage[index], nn.Identity()
    return dropout.p


def augmented_batch(
    images: Tensor, index: Tensor, matrices: Tensor, statistics: tuple[float, float]
) -> Tensor:
    """`utils.augmentation.batch` in one compiled pass, on the CPU; arguments as there.

    Raises:
        ValueError: for indices or matrices with which compiled code would read beyond its arrays.
    """
    from fast import spatial

    which, how = index.numpy(), matrices.numpy()
    if len(which) and not 0 <= which.min() <= which.max() < len(images):
        raise ValueError(f"index: images are numbered 0 to {len(images) - 1}, not all of these are")
    if how.shape != (len(which), 2, 3) or not (abs(how) < HUGE).all():
        raise ValueError(f"matrices: expected [{len(which)}, 2, 3] of finite numbers")
    out = torch.empty(len(index), 1, *images.shape[1:], dtype=torch.float32)
    spatial.augment(images.numpy(), which, how, *statistics, out.squeeze(1).numpy())
    return out
