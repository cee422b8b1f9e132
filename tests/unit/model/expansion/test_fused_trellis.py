"""The kernel of stage trellis against its slow twin: on a GPU where there is one, else interpreted on the processor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from model.codec.arrays import MemoryArrays
from model.codec.chain import CodecChain
from model.codec.int8 import Int8
from model.codec.pack import Pack
from model.codec.trellis import Trellis
from model.expansion.expander import Expander
from model.expansion.stages import fused_expansion_of
from tests.helpers.codebooks import KEY_SIZE, a_codebook

if TYPE_CHECKING:
    from model.expansion.fused_trellis import FusedTrellis

MODULE = "model.expansion.fused_trellis"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = 1e-5
"""Of the largest number: sums have another order."""
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Of each number: a unit in the last place."""


@pytest.fixture(scope="module")
def fused() -> Iterator[type[FusedTrellis]]:
    with pytest.MonkeyPatch.context() as patched:
        if DEVICE.type == "cpu":
            patched.setenv("TRITON_INTERPRET", "1")
        sys.modules.pop(MODULE, None)
        from model.expansion.fused_trellis import FusedTrellis

        yield FusedTrellis
        sys.modules.pop(MODULE)


def expanded_twice(
    fused: type[FusedTrellis], stage: Trellis, num_memories: int, num_kept: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys, values and positions by the kernel, and by torch's operations."""
    num_layers, num_kv_heads, head_dim = stage.codebook.shape
    chain, rng, memories = CodecChain((stage, Pack())), np.random.default_rng(0), []
    for number in range(num_memories):
        shape = (num_layers, num_kv_heads, num_kept, head_dim)
        keys, values = rng.standard_normal((2, *shape), dtype=np.float32)
        positions = np.sort(np.argsort(rng.random((*shape[:2], 256)), axis=2)[..., :num_kept], axis=2)
        arrays = MemoryArrays(KEY_SIZE * keys, values, positions.astype(np.uint8), 256)
        memories.append(chain.unpack(chain.encode(arrays, f"{number:032x}", "0" * 32), f"{number:032x}", "0" * 32))
    twin = Expander(chain, DEVICE, dtype, may_fuse=False)
    payload = twin.send(memories)
    return fused(stage, DEVICE, dtype)(payload), twin.expand_sent(payload, memories[0].specs)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    ("num_layers", "num_kv_heads", "head_dim", "least_bits", "num_memories", "num_kept"),
    [
        (3, 2, 16, 0, 5, 8),
        (1, 3, 64, 0, 3, 7),
        (2, 1, 80, 3, 1, 5),
        (1, 1, 8, 6, 1, 1),
        (1, 1, 2, 6, 40, 3),
        (1, 1, 16, 0, 129, 8),  # large tiles, the last one not full
    ],
)
def test_the_kernel_gives_what_the_slow_twin_gives(
    fused: type[FusedTrellis],
    num_layers: int,
    num_kv_heads: int,
    head_dim: int,
    least_bits: int,
    num_memories: int,
    num_kept: int,
    dtype: torch.dtype,
) -> None:
    stage = Trellis(a_codebook(num_layers, num_kv_heads, head_dim, least_bits, value_gain=1.1))
    check(*expanded_twice(fused, stage, num_memories, num_kept, dtype))


def test_heads_of_few_coded_numbers_or_none_are_read_too(fused: type[FusedTrellis]) -> None:
    book = a_codebook(2, 2, 64, 0)
    bits_AI = np.maximum(0, 5 - np.arange(128) // np.array([4, 7, 16])[:, None]).astype(np.uint8)
    bits_LKI = np.concatenate((bits_AI, np.zeros((1, 128), dtype=np.uint8))).reshape(2, 2, 128)
    check(*expanded_twice(fused, Trellis(replace(book, bits_LKI=bits_LKI)), 3, 4, torch.float32))


def check(by_kernel: tuple[Tensor, ...], by_twin: tuple[Tensor, ...]) -> None:
    for found, wanted in zip(by_kernel[:2], by_twin[:2], strict=True):
        largest = wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=ROUNDING[wanted.dtype], atol=TOLERANCE * largest)
    torch.testing.assert_close(by_kernel[2], by_twin[2], rtol=0, atol=0)


def test_the_keys_and_the_values_of_a_memory_lie_together(fused: type[FusedTrellis]) -> None:
    (keys, values, _), _ = expanded_twice(fused, Trellis(a_codebook()), 3, 4, torch.bfloat16)
    assert keys.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
    assert all(rows.is_contiguous() for rows in (*keys, *values))


@pytest.mark.parametrize(
    ("stage", "device", "is_fused"), [("trellis", "cuda", True), ("trellis", "cpu", False), ("int8", "cuda", False)]
)
def test_the_kernel_is_for_trellis_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, stage: str, device: str, is_fused: bool
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(FusedTrellis=lambda *_: "the kernel"))
    stages = (Trellis(a_codebook()) if stage == "trellis" else Int8(),)
    found = fused_expansion_of(stages, torch.device(device), torch.float32)
    assert found == ("the kernel" if is_fused else None)


def test_where_it_cannot_be_compiled_there_is_a_warning_and_no_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(FusedTrellis=refuse))
    assert fused_expansion_of((Trellis(a_codebook()),), torch.device("cuda"), torch.float32) is None
    assert "Failed to find C compiler" in caplog.text


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU")
def test_an_expander_on_a_gpu_takes_the_kernel() -> None:
    chain = CodecChain((Trellis(a_codebook()), Pack()))
    assert Expander(chain, DEVICE).is_fused
    assert not Expander(chain, DEVICE, may_fuse=False).is_fused
