"""Memories as tensors and as the codec's arrays."""

import numpy as np
import pytest
import torch

from model.memory.explicit_memory import ExplicitMemory


def _memory(dtype: torch.dtype = torch.float32) -> ExplicitMemory:
    k_LKSD, v_LKSD = torch.randn(2, 3, 2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    return ExplicitMemory(k_LKSD, v_LKSD, torch.arange(4, dtype=torch.uint8).expand(3, 2, 4), 20, "a" * 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arrays_hold_the_same_numbers(dtype: torch.dtype):
    memory = _memory(dtype)
    arrays = memory.to_arrays()
    for array, tensor in ((arrays.k_LKSD, memory.k_LKSD), (arrays.v_LKSD, memory.v_LKSD)):
        assert array.dtype == np.float32
        assert torch.equal(torch.from_numpy(array), tensor.float())
    assert arrays.positions_LKS.tolist() == memory.positions_LKS.tolist()
    assert (arrays.num_reference_tokens, memory.num_kept_tokens) == (20, 4)


@pytest.mark.parametrize("wrong", ["v_LKSD", "positions_LKS"])
def test_refuses_shapes_that_do_not_fit(wrong: str):
    memory = _memory()
    parts = {"k_LKSD": memory.k_LKSD, "v_LKSD": memory.v_LKSD, "positions_LKS": memory.positions_LKS}
    parts[wrong] = parts[wrong][:, :, :3]
    with pytest.raises(ValueError, match="do not fit"):
        ExplicitMemory(**parts, num_reference_tokens=20)
