"""Working memory: preallocated keys and values of every slot, with rows reserved for explicit memories.

Knows where rows lie and which are visible; knows no queries and no projections.

    rows of a memory layer      | memory 0 | memory 1 | ... | memory M-1 | prefix | context ->
    rows of any other layer                                              | prefix | context ->

Keys are stored rotated, so the order of rows does not matter: memories are swapped by overwriting their rows.

Shape letters: Z slots, K KV heads, E rows, D head dimension, L layers, N = M*S memory rows, P prefix tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.memory.explicit_memory import ExplicitMemory
from model.plan import MemoryPlan
from model.prefix import PrefixState


@dataclass(frozen=True)
class LayerRows:
    """The rows of one layer, all slots."""

    kv_2ZKED: Tensor
    """A view of the cache: keys, and values."""
    memory_layer: int | None
    """Which of the plan's memory layers this is, from 0; None if it reads no memories."""
    num_memory_rows: int
    """N in a memory layer, else 0; the prefix follows."""


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
        self.num_prefix_tokens, self.num_memory_rows = prefix.num_tokens, plan.memory_rows
        self.memories_per_chunk = plan.memories_per_chunk
        num_memory_layers = len(plan.memory_layers)
        num_rows = prefix.num_tokens + max_context_tokens
        # Zeroed, not empty: a masked row counts nothing only if it is finite.
        shape = (2, num_slots, config.num_kv_heads)
        self._memory_layers_kv_L2ZKED = torch.zeros(
            num_memory_layers, *shape, plan.memory_rows + num_rows, config.head_dim, dtype=dtype, device=device
        )
        self._other_layers_kv_L2ZKED = torch.zeros(
            config.num_layers - num_memory_layers, *shape, num_rows, config.head_dim, dtype=dtype, device=device
        )
        self.layers = tuple(self._layer_rows())
        self.bias_ZE = torch.full((num_slots, plan.memory_rows + num_rows), -torch.inf, dtype=dtype, device=device)
        """What to add to the scores, by rows of a memory layer: 0 for a visible row, minus infinity for any other."""
        self.bias_ZE[:, plan.memory_rows : plan.memory_rows + prefix.num_tokens] = 0
        for rows, kv_2KPD in zip(self.layers, prefix.kv_2KPD, strict=True):
            start = rows.num_memory_rows
            rows.kv_2ZKED[:, :, :, start : start + prefix.num_tokens] = kv_2KPD[:, None]
        self.lengths = [0] * num_slots
        """Context tokens in each slot, prefix not counted."""
        self.num_memories = [0] * num_slots
        """Memories present in each slot."""

    def _layer_rows(self) -> list[LayerRows]:
        memory_layers, rows, num_others = {layer: i for i, layer in enumerate(self._plan.memory_layers)}, [], 0
        for layer in range(self._config.num_layers):
            if layer in memory_layers:
                index = memory_layers[layer]
                rows.append(LayerRows(self._memory_layers_kv_L2ZKED[index], index, self._plan.memory_rows))
            else:
                rows.append(LayerRows(self._other_layers_kv_L2ZKED[num_others], None, 0))
                num_others += 1
        return rows

    def clear(self, slot: int) -> None:
        """Empty the slot. Its rows are zeroed, so that numbers of a broken sequence cannot reach the next one."""
        context = self.num_memory_rows + self.num_prefix_tokens
        self._memory_layers_kv_L2ZKED[:, :, slot, :, : self.num_memory_rows] = 0
        self._memory_layers_kv_L2ZKED[:, :, slot, :, context : context + self.lengths[slot]] = 0
        context -= self.num_memory_rows
        self._other_layers_kv_L2ZKED[:, :, slot, :, context : context + self.lengths[slot]] = 0
        self.bias_ZE[slot] = -torch.inf
        self.bias_ZE[slot, self.num_memory_rows : self.num_memory_rows + self.num_prefix_tokens] = 0
        self.lengths[slot] = self.num_memories[slot] = 0

    def set_memories(self, slot: int, memories: Sequence[ExplicitMemory]) -> None:
        """Overwrite the slot's memory rows in place, mask rows of absent ones. The caller checks that they fit."""
        size = self._plan.tokens_per_memory
        self.bias_ZE[slot, : self.num_memory_rows] = -torch.inf
        for place, memory in enumerate(memories):
            rows = slice(place * size, place * size + memory.num_kept_tokens)
            self._memory_layers_kv_L2ZKED[:, 0, slot, :, rows] = memory.k_LKSD
            self._memory_layers_kv_L2ZKED[:, 1, slot, :, rows] = memory.v_LKSD
            self.bias_ZE[slot, rows] = 0
        self.num_memories[slot] = len(memories)

    def extend(self, slot: int, num_tokens: int) -> None:
        """Count tokens as present and their rows as visible; attention writes the rows."""
        start = self.num_memory_rows + self.num_prefix_tokens + self.lengths[slot]
        self.bias_ZE[slot, start : start + num_tokens] = 0
        self.lengths[slot] += num_tokens
