"""A training step recorded once as a CUDA graph, then replayed: one launch, not hundreds."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from utils.validation import first_line


@contextlib.contextmanager
def side_stream(device: str) -> Iterator[None]:
    """On a CUDA device a stream of its own, because the default one cannot record a graph."""
    if not device.startswith("cuda"):
        yield
        return
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)


class GraphedStep:
    """Calls `step` for the first batches, then records it and replays the recording.

    The first steps run as they are, because libraries allocate on first use; so do batches of
    another size, that is, an epoch's last. A graph reads fixed memory: batch and learning rate are
    copied there before each replay. A recording that fails is said in one line, and the plain step
    goes on.

    Args:
        step: maps index [N] and warps [N, 2, 3] or None to a loss, all on the device.
        optimizer: the one that `step` calls; its learning rate may change between steps.
        size: images per batch.
        record: takes a function without arguments; returns its result's memory and what replays it.
    """

    WARM_UP = 3

    def __init__(self, step: Callable, optimizer: torch.optim.Optimizer, size: int, record=None):
        self.step, self.size = step, size
        self.groups = optimizer.param_groups
        self.record = record or record_graph
        self.seen = 0
        self.replay: Callable | None = None
        self.failed = False

    def __call__(self, index: Tensor, warps: Tensor | None) -> Tensor:
        """One step; returns the loss."""
        self.seen += 1
        if self.failed or len(index) != self.size or self.seen <= self.WARM_UP:
            return self.step(index, warps)
        if self.replay is None and not self._recorded(index, warps):
            return self.step(index, warps)
        self.index.copy_(index)
        if warps is not None:
            self.augments.copy_(warps)
        self.rate.fill_(self.groups[0]["lr"])
        self.replay()
        return self.loss.clone()

    def _recorded(self, index: Tensor, warps: Tensor | None) -> bool:
        self.index = index.clone()
        self.augments = None if warps is None else warps.clone()
        rate = self.groups[0]["lr"]
        self.rate = torch.tensor(rate, device=index.device)
        self.groups[0]["lr"] = self.rate
        try:
            self.loss, self.replay = self.record(lambda: self.step(self.index, self.augments))
        except RuntimeError as error:
            print(
                f"no CUDA graph ({first_line(error)}); every step is launched as it is",
                file=sys.stderr,
            )
            self.failed = True
        finally:
            self.groups[0]["lr"] = rate
        return not self.failed


def record_graph(function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Capture what `function` launches on the current stream, without running it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        output = function()
    return output, graph.replay
