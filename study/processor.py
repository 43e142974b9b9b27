"""What a run was computed on, in words for its record."""

import platform

import torch

from utils.device import Engine


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
