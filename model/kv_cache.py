"""Working memory: preallocated keys and values of every slot, with rows reserved for explicit memories.

Knows where rows lie and which are visible; knows no queries and no projections.

    rows of a memory layer      | memory 0 | memory 1 | ... | memory M-1 | prefix | context ->
    rows of any other layer                                              | prefix | context ->

A memory takes as many rows in a layer as the head that keeps most there (`model.memory.pages`), so layers differ.

Keys are stored rotated, so the order of rows does not matter: memories are swapped by overwriting their rows.

Shape letters: Z slots, K KV heads, E rows, D head dimension, N memory rows, P prefix tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.memory.collate import collate
from model.memory.explicit_memory import ExplicitMemory
from model.memory.pages import page_table
from model.plan import MemoryPlan
from model.prefix import PrefixState


@dataclass(frozen=True)
class LayerRows:
    """The rows of one layer, all slots."""

    kv_2ZKED: Tensor
    """Keys, and values."""
    memory_layer: int | None
    """Which of the plan's memory layers this is, from 0; None if it reads no memories."""
    num_memory_rows: int
    """N; 0 where no head reads memories. The prefix follows."""
    memory_bias_ZKN: Tensor
    """What to add to the scores of memory rows: 0 for a visible row, minus infinity for any other."""


class KVCache:
    """Slots of keys and values. A slot is empty, or holds one sequence; the prefix is in every slot from the start."""

    def __init__(
        self,
        config: ModelConfig,
        plan: MemoryPlan,
        prefix: PrefixState,
        *,
        num_slots: int,
        max_context_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._config, self._plan = config, plan
        self.num_slots, self.max_context_tokens = num_slots, max_context_tokens
        self.num_prefix_tokens, self.memories_per_chunk = prefix.num_tokens, plan.memories_per_chunk
        self._pages = page_table(plan, config.num_kv_heads, device)
        num_rows = prefix.num_tokens + max_context_tokens
        self.bias_ZE = torch.full((num_slots, num_rows), -torch.inf, dtype=dtype, device=device)
        """What to add to the scores behind the memory rows: 0 for a visible row, minus infinity for any other."""
        self.bias_ZE[:, : prefix.num_tokens] = 0
        self.layers = tuple(self._layer_rows(layer, num_rows) for layer in range(config.num_layers))
        for rows, kv_2KPD in zip(self.layers, prefix.kv_2KPD, strict=True):
            start = rows.num_memory_rows
            rows.kv_2ZKED[:, :, :, start : start + prefix.num_tokens] = kv_2KPD[:, None]
        self.lengths = [0] * num_slots
        """Context tokens in each slot, prefix not counted."""
        self.num_memories = [0] * num_slots
        """Memories present in each slot."""

    def _layer_rows(self, layer: int, num_rows: int) -> LayerRows:
        layers, config, like = self._plan.memory_layers, self._config, self.bias_ZE
        memory_layer = layers.index(layer) if layer in layers else None
        of_memory = 0 if memory_layer is None else self._pages.num_rows(memory_layer)
        of_memories = self.memories_per_chunk * of_memory
        shape = (self.num_slots, config.num_kv_heads, of_memories + num_rows, config.head_dim)
        # Zeroed, not empty: a masked row counts nothing only if it is finite.
        return LayerRows(
            like.new_zeros(2, *shape), memory_layer, of_memories, like.new_full((*shape[:2], of_memories), -torch.inf)
        )

    def clear(self, slot: int) -> None:
        """Empty the slot. Its rows are zeroed, so that numbers of a broken sequence cannot reach the next one."""
        for rows in self.layers:
            context = rows.num_memory_rows + self.num_prefix_tokens
            rows.kv_2ZKED[:, slot, :, : rows.num_memory_rows] = 0
            rows.kv_2ZKED[:, slot, :, context : context + self.lengths[slot]] = 0
            rows.memory_bias_ZKN[slot] = -torch.inf
        self.bias_ZE[slot, self.num_prefix_tokens :] = -torch.inf
        self.lengths[slot] = self.num_memories[slot] = 0

    def set_memories(self, slot: int, memories: Sequence[ExplicitMemory]) -> None:
        """Overwrite the slot's memory rows in place, mask rows of absent ones. The caller checks that they fit."""
        collated = collate([[memories]], 1, self._plan, like=self.bias_ZE)
        for rows in self.layers:
            if rows.memory_layer is None or collated is None:
                rows.memory_bias_ZKN[slot] = -torch.inf
            else:
                rows.kv_2ZKED[:, slot, :, : rows.num_memory_rows] = collated.layer(rows.memory_layer)[:, 0, 0]
                rows.memory_bias_ZKN[slot] = collated.bias(rows.memory_layer)[0, 0]
        self.num_memories[slot] = len(memories)

    def extend(self, slot: int, num_tokens: int) -> None:
        """Count tokens as present and their rows as visible; attention writes the rows."""
        start = self.num_prefix_tokens + self.lengths[slot]
        self.bias_ZE[slot, start : start + num_tokens] = 0
        self.lengths[slot] += num_tokens
