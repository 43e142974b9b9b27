"""Where and how a run computes: device, precision, threads; recorded with every run."""

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

import fast
from utils.validation import Positive, checked, first_line

ENGINE_VERSION = 2  # raised whenever the same run would give other numbers; part of every key
# Weights and dropout draw from torch's global generator, and settings are of the whole process, so
# two runs in two threads would disturb each other: one after the other, then.
ONE_RUN = threading.RLock()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@checked
class Engine:
    """Settings that decide the last bits of a result, and how long it takes.

    One thing more does: on a CPU, Numba's warps are used wherever Numba runs.
    """

    device: Annotated[str, Field(pattern=r"^(cpu|cuda|mps)(:\d+)?$")] = "cpu"
    # Of the forward and backward pass; weights are always float32. "tf32": CUDA's convolutions
    # round float32 to ten bits of mantissa.
    precision: Literal["float32", "bfloat16", "tf32"] = "float32"
    threads: Positive = 1  # of the CPU
    layout: Literal["contiguous", "channels_last"] = "contiguous"  # memory format of activations
    fused: bool = False  # CPU only: the compiled layers of fast, not torch's own
    graph: bool = False  # CUDA only: a step is recorded once and replayed

    @property
    def memory_format(self) -> torch.memory_format:
        """`layout` as torch names it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass in this precision."""
        if self.precision != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)


def best_engine(device: str | None = None, precision: str | None = None) -> Engine:
    """The fastest settings for `device` (default: $MNIST_DEVICE, else CUDA, then MPS, then CPU).

    On a CPU: bfloat16 where it has instructions for it (`benchmarks/` measures both), and the
    compiled layers where Numba can be used.

    Raises:
        ValueError: for an unknown precision or a device that is not there.
    """
    device = device or os.environ.get("MNIST_DEVICE") or _default_device()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({first_line(error)}); try 'cpu'"
        ) from None
    threads = torch.get_num_threads()
    if device.startswith("cuda"):
        return Engine(device, precision or "tf32", threads)
    if not device.startswith("cpu"):
        return Engine(device, precision or "float32", threads)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    precision = precision or ("bfloat16" if native else "float32")
    return Engine(device, precision, threads, "channels_last", fused=fast.usable())


def reference_engine() -> Engine:
    """The yardstick of the fast one: float32 and torch's own layers, on the CPU."""
    return Engine("cpu", "float32", torch.get_num_threads())


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextlib.contextmanager
def pinned(engine: Engine) -> Iterator[None]:
    """Compute by `engine` alone, whatever the caller has set.

    Default dtype and device, threads, gradient mode, autocast and TF32 are put back afterwards.
    A context is entered only where it changes something: each one costs every call in it time.
    """
    kind = torch.device(engine.device).type
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul) if kind == "cuda" else ()
    tf32 = [flag.allow_tf32 for flag in flags]
    with contextlib.ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(engine.threads)
        for flag in flags:
            flag.allow_tf32 = engine.precision == "tf32"
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            for flag, allowed in zip(flags, tf32, strict=True):
                flag.allow_tf32 = allowed


def processor(engine: Engine) -> str:
    """What computes, for a record: "AVX-512, AMD EPYC" or a GPU's name."""
    if engine.device.startswith("cuda"):
        return torch.cuda.get_device_name(engine.device)
    if not engine.device.startswith("cpu"):
        return platform.processor() or platform.machine()
    return f"{processor_kind()}, {_cpu_name()}"


def processor_kind() -> str:
    """The instructions that decide speed: "AMX", "AVX-512", "AVX2", or the architecture."""
    if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return "AMX"
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "AVX-512", "AVX2": "AVX2"}.get(capability, platform.machine())


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def keep_memory() -> None:
    """Tell glibc's allocator to keep what is freed; other allocators are left alone.

    A step frees and takes the same megabytes again and again; where they go back to the system,
    page faults slow it down, most of all where Dask has set the allocator.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # bytes, the largest that every glibc accepts
        mallopt(M_TRIM_THRESHOLD, 2**30)
