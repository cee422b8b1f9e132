"""Memories as tensors and as the codec's arrays."""

import numpy as np
import pytest
import torch

from model.codec.arrays import MemoryArrays
from model.memory.explicit_memory import ExplicitMemory


def _memory(dtype: torch.dtype = torch.float32) -> ExplicitMemory:
    k_LKSD, v_LKSD = torch.randn(2, 3, 2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    return ExplicitMemory(k_LKSD, v_LKSD, torch.arange(4, dtype=torch.uint8).expand(3, 2, 4), 20, "a" * 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip(dtype: torch.dtype):
    memory = _memory(dtype)
    arrays = memory.to_arrays()
    assert arrays.k_LKSD.dtype == np.float32
    again = ExplicitMemory.from_arrays(arrays, memory.reference_id, dtype)
    assert torch.equal(again.k_LKSD, memory.k_LKSD)
    assert torch.equal(again.v_LKSD, memory.v_LKSD)
    assert torch.equal(again.positions_LKS, memory.positions_LKS)
    assert (again.num_reference_tokens, again.reference_id, again.num_kept_tokens) == (20, "a" * 32, 4)


def test_arrays_that_may_not_be_written_are_copied():
    """As those that lie in the bytes of a record; torch would warn, and writing to them would be undefined."""
    arrays = _memory().to_arrays()
    frozen = [array.copy() for array in (arrays.k_LKSD, arrays.v_LKSD, arrays.positions_LKS)]
    for array in frozen:
        array.flags.writeable = False
    memory = ExplicitMemory.from_arrays(MemoryArrays(*frozen, num_reference_tokens=20))
    memory.k_LKSD.zero_()
    assert frozen[0].any()


@pytest.mark.parametrize("wrong", ["v_LKSD", "positions_LKS"])
def test_refuses_shapes_that_do_not_fit(wrong: str):
    memory = _memory()
    parts = {"k_LKSD": memory.k_LKSD, "v_LKSD": memory.v_LKSD, "positions_LKS": memory.positions_LKS}
    parts[wrong] = parts[wrong][:, :, :3]
    with pytest.raises(ValueError, match="do not fit"):
        ExplicitMemory(**parts, num_reference_tokens=20)
