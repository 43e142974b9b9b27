"""Where and how a run computes: device, precision, threads; recorded with every run."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

import fast
from utils.validation import Positive, checked, first_line

ENGINE_VERSION = 2  # increased when a code change alters results; part of every key
# Weights and dropout draw from torch's global generator, and torch's settings belong to the whole
# process: two runs in two threads would disturb each other, so one waits for the other.
_ONE_AT_A_TIME = threading.RLock()


@checked
class Engine:
    """Settings that affect speed and rounding, not the method.

    Compiled augmentation is not one of them: it runs on any CPU that has Numba.
    """

    device: Annotated[str, Field(pattern=r"^(cpu|cuda|mps)(:\d+)?$")] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward and backward pass
    threads: Positive = 1  # of the CPU
    layout: Literal["contiguous", "channels_last"] = "contiguous"  # memory format of activations
    fused: bool = False  # CPU only: the compiled layers of fast/, not torch's own
    graph: Literal[False] = False  # unused; kept because existing records contain it

    @property
    def memory_format(self) -> torch.memory_format:
        """`layout` as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass in this precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)


def best_engine(device: str | None = None, precision: str | None = None) -> Engine:
    """The fastest settings for `device` (default: $MNIST_DEVICE, else CUDA, then MPS, then CPU).

    On a CPU: bfloat16 where it has instructions for it (`benchmarks/` measures both), and the
    compiled layers where Numba can be used. A ValueError for an unknown precision or a device that
    is not there.
    """
    mps = "mps" if torch.backends.mps.is_available() else "cpu"
    device = device or os.environ.get("MNIST_DEVICE")
    device = device or ("cuda" if torch.cuda.is_available() else mps)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ValueError(f"device {device!r} cannot be used here ({reason}); try 'cpu'") from None
    threads = torch.get_num_threads()
    if not device.startswith("cpu"):
        return Engine(device, precision or "float32", threads)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    precision = precision or ("bfloat16" if native else "float32")
    return Engine(device, precision, threads, "channels_last", fused=fast.usable())


def reference_engine() -> Engine:
    """What the fast engine is compared with: float32 and torch's own layers, on the CPU."""
    return Engine("cpu", "float32", torch.get_num_threads())


@contextlib.contextmanager
def exclusive(engine: Engine) -> Iterator[None]:
    """Run with these settings, one run at a time; restore torch's global state afterwards.

    That is random state, default dtype and device, threads, gradient mode and autocast. A context
    is entered only where it changes something, since entering one takes time.
    """
    kind = torch.device(engine.device).type
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.random.fork_rng([engine.device] if kind == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(engine.threads)
        yield
