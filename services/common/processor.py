"""What this machine's processor is, and what it is good at."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_model() -> str:
    """The processor's own name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def native_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """bfloat16 on a processor with instructions for it (twice as fast there), float32 on any other."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16"} else "float32"
