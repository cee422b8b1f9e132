"""What this machine's processor is good at."""

from __future__ import annotations

from pathlib import Path


def native_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """bfloat16 on a processor with instructions for it (twice as fast there), float32 on any other."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16"} else "float32"
