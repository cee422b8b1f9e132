"""The expander against its slow twin in numpy, and what it does beside numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from model.codec.arrays import MemoryArrays
from model.codec.base import Arrays, ArraysToArrays, Specs
from model.codec.chain import STAGES, CodecChain
from model.codec.int4 import Int4
from model.codec.int8 import Int8
from model.codec.pack import Pack
from model.codec.packed_memory import PackedMemory
from model.codec.trellis import Trellis
from model.expansion.expander import Expander
from model.expansion.stages import expansion_of
from model.plan import MemoryPlan
from tests.helpers.codebooks import a_codebook
from tests.helpers.codec_twin import slow_read

ON_ARRAYS = [name for name, stage in STAGES.items() if issubclass(stage, ArraysToArrays)]


def chain(codec: str) -> CodecChain:
    return CodecChain.from_plan(
        MemoryPlan("test", (0,), 8, "attention", "sum", codec=(codec,)), a_codebook(least_bits=0, value_gain=1.1)
    )


def packed(chain: CodecChain, kept: Sequence[int], head_dim: int = 16) -> list[PackedMemory]:
    """Memories of so many kept tokens each, their number as reference id."""
    memories, rng = [], np.random.default_rng(0)
    for number, num_kept in enumerate(kept):
        keys, values = rng.standard_normal((2, 3, 2, num_kept, head_dim), dtype=np.float32)
        positions = np.broadcast_to(np.arange(num_kept, dtype=np.uint8) * 3, (3, 2, num_kept))
        record = chain.encode(MemoryArrays(keys, values, positions, 100), f"{number:032x}", "f" * 32)
        memories.append(chain.unpack(record, f"{number:032x}", "f" * 32))
    return memories


@pytest.mark.parametrize("codec", ON_ARRAYS)
def test_memories_come_in_order_whatever_their_lengths(codec: str) -> None:
    memories = packed(chain(codec), [4, 2, 4, 3])
    expanded = Expander(chain(codec), "cpu", torch.bfloat16).expand([*memories, memories[0]])
    assert [int(memory.reference_id, 16) for memory in expanded] == [0, 1, 2, 3, 0]
    assert [memory.num_kept_tokens for memory in expanded] == [4, 2, 4, 3, 4]
    assert expanded[4] is expanded[0]
    assert {tensor.dtype for memory in expanded for tensor in (memory.k_LKSD, memory.v_LKSD)} == {torch.bfloat16}


@pytest.mark.parametrize("codec", ON_ARRAYS)
def test_a_batch_is_expanded_as_the_slow_twin_reads_each_memory(codec: str) -> None:
    """To the bit, but for the products and turns of the trellis."""
    memories = packed(chain(codec), [5, 3, 5, 4])
    tolerance = 1e-4 if codec == "trellis" else 0
    for expanded, memory in zip(Expander(chain(codec), "cpu").expand(memories), memories, strict=True):
        slow = slow_read(chain(codec), memory)
        np.testing.assert_allclose(expanded.k_LKSD.numpy(), slow.k_LKSD, rtol=0, atol=tolerance)
        np.testing.assert_allclose(expanded.v_LKSD.numpy(), slow.v_LKSD, rtol=0, atol=tolerance / 10)
        np.testing.assert_array_equal(expanded.positions_LKS.numpy(), slow.positions_LKS)
        assert expanded.num_reference_tokens == 100


def test_no_memories_are_none() -> None:
    assert Expander(chain("int8"), "cpu").expand([]) == []


@pytest.mark.parametrize("codec", ON_ARRAYS)
def test_nothing_stays_on_the_host_and_nothing_waits_for_the_device(codec: str) -> None:
    """A tensor on the device `meta` mixes with none of the host's, and has no numbers that could be looked at."""
    for memory in Expander(chain(codec), "meta").expand(packed(chain(codec), [4, 4, 3])):
        assert {memory.k_LKSD.device.type, memory.v_LKSD.device.type, memory.positions_LKS.device.type} == {"meta"}
        assert memory.v_LKSD.shape == (3, 2, memory.num_kept_tokens, 16)


@pytest.mark.parametrize("stage", [Int8("float32"), Int4(3, "float32"), Int4(5)], ids=str)
def test_arrays_may_begin_at_any_byte(stage: ArraysToArrays) -> None:
    odd = CodecChain((stage, Pack()))
    memories = packed(odd, [1, 1], head_dim=2)
    for expanded, memory in zip(Expander(odd, "cpu").expand(memories), memories, strict=True):
        np.testing.assert_array_equal(expanded.v_LKSD.numpy(), slow_read(odd, memory).v_LKSD)


def test_a_trellis_of_few_and_of_many_bits_is_read_as_by_the_slow_twin() -> None:
    for least_bits in (0, 3, 6):
        coded = CodecChain((Trellis(a_codebook(least_bits=least_bits)), Pack()))
        memories = packed(coded, [5, 5, 2])
        for expanded, memory in zip(Expander(coded, "cpu").expand(memories), memories, strict=True):
            slow = slow_read(coded, memory)
            np.testing.assert_allclose(expanded.k_LKSD.numpy(), slow.k_LKSD, atol=1e-4)
            np.testing.assert_allclose(expanded.v_LKSD.numpy(), slow.v_LKSD, atol=1e-5)


def test_a_stage_without_an_expansion_is_named() -> None:
    @dataclass(frozen=True)
    class New(ArraysToArrays):
        name: ClassVar[str] = "new"

        def resolve(self, specs: Specs) -> Specs:
            return specs

        def encode(self, arrays: Arrays) -> Arrays:
            return arrays

    with pytest.raises(TypeError, match="'new' has no expansion"):
        expansion_of(New(), torch.device("cpu"))
