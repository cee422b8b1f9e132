"""The number format that `auto` stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.processor import native_dtype
from services.launch.config import LaunchSettings, tier_specs


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx512f amx_bf16", "bfloat16"), ("fpu avx512_bf16", "bfloat16"), ("fpu avx2 avx512f", "float32")],
)
def test_the_processor_decides(tmp_path: Path, flags: str, dtype: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert native_dtype(cpuinfo) == dtype


def test_an_unknown_processor_gets_float32(tmp_path: Path) -> None:
    assert native_dtype(tmp_path / "absent") == "float32"


def test_a_chosen_format_wins() -> None:
    decoder = tier_specs(LaunchSettings(dtype="float32"), (1, 2, 3))[2]
    assert decoder.env["MEMORY3_DECODER_DTYPE"] == "float32"
