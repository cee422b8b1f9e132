"""Packed memories become explicit ones on the device that reads them: codes travel, tables lie there.

The one decoder of the stages on arrays; every device runs the same, the CPU too, but that a GPU undoes `trellis` in one
kernel where triton is installed. A batch is expanded as a whole: no loop over memories, layers, heads or tokens. Knows
no model, no cache and no records.

Shape letters: U memories, L memory layers, K KV heads, S kept tokens, D head dimension, X bytes of a payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import prod

import numpy as np
import torch
from torch import Tensor

from model.codec.base import Specs
from model.codec.chain import CodecChain
from model.codec.packed_memory import PackedMemory
from model.expansion.stages import Tensors, expansion_of, fused_expansion_of
from model.memory.explicit_memory import ExplicitMemory


class Expander:
    """Reads the memories of one codec chain; holds its tables on one device."""

    def __init__(
        self,
        chain: CodecChain,
        device: str | torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        may_fuse: bool = True,
    ) -> None:
        """`dtype` of the keys and values it gives. Without `may_fuse` only torch's operations are used."""
        self._device, self._dtype = torch.device(device), dtype
        self._fused = fused_expansion_of(chain.on_arrays, self._device, dtype) if may_fuse else None
        self._expansions = [expansion_of(stage, self._device) for stage in reversed(chain.on_arrays)]

    def expand(self, memories: Sequence[PackedMemory]) -> list[ExplicitMemory]:
        """The memories, in order, on the device; one that is given twice is expanded once.

        Those of one call share their tensors' storage.
        """
        distinct = {id(memory): memory for memory in memories}
        expanded: dict[int, ExplicitMemory] = {}
        for _, same in groupby(sorted(distinct.values(), key=_shape), key=_shape):
            group = list(same)
            expanded.update(zip(map(id, group), self._expand(group), strict=True))
        return [expanded[id(memory)] for memory in memories]

    @property
    def is_fused(self) -> bool:
        """Whether one kernel does it all."""
        return self._fused is not None

    def send(self, memories: Sequence[PackedMemory]) -> Tensor:
        """The payloads `[U, X]` of memories of one shape on the device, in one copy."""
        payload = torch.frombuffer(bytearray().join(memory.payload for memory in memories), dtype=torch.uint8)
        if self._device.type == "cuda":
            payload = payload.pin_memory()
        return payload.view(len(memories), -1).to(self._device, non_blocking=True)

    def expand_sent(self, payload_UX: Tensor, specs: Specs) -> tuple[Tensor, Tensor, Tensor]:
        """`k_ULKSD`, `v_ULKSD` and `positions_ULKS` of payloads on the device."""
        if self._fused is not None:
            return self._fused(payload_UX)
        arrays = _unpacked(payload_UX, specs)
        for expansion in self._expansions:
            arrays = expansion(arrays)
        return arrays["keys"].to(self._dtype), arrays["values"].to(self._dtype), arrays["positions"]

    def _expand(self, memories: Sequence[PackedMemory]) -> list[ExplicitMemory]:
        """Of one shape."""
        tensors = self.expand_sent(self.send(memories), memories[0].specs)
        return [
            ExplicitMemory(k_LKSD, v_LKSD, positions_LKS, memory.num_reference_tokens, memory.reference_id)
            for memory, k_LKSD, v_LKSD, positions_LKS in zip(memories, *tensors, strict=True)
        ]


def _unpacked(payload_UX: Tensor, specs: Specs) -> Tensors:
    """The arrays of stage `pack`, `[U, ...]`, where the payloads lie."""
    arrays: Tensors = {}
    start = 0
    for name, spec in specs.items():
        end = start + spec.dtype.itemsize * prod(spec.shape)
        # A copy, since an array may begin at a byte that its dtype cannot be read from.
        part_UX = payload_UX[:, start:end].clone(memory_format=torch.contiguous_format)
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        arrays[name] = part_UX.view(dtype).view(len(payload_UX), *spec.shape)
        start = end
    return arrays


def _shape(memory: PackedMemory) -> tuple[int, int, int, int]:
    return memory.shape
