"""Memories of a batch side by side, for attention to read: each query chunk's own as rows, absent ones masked.

Knows no cache and no queries.

Shape letters: B items, C query chunks, M memories per chunk, S kept tokens of a page, L memory layers, K KV heads (of
stored tensors: pages of a layer), P pages of a memory, J pages of a layer's head that has most, N = M*J*S rows, D head
dimension, U different memories in the batch, X = B*C*M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.memory.explicit_memory import ExplicitMemory
from model.memory.pages import PageTable, page_table
from model.plan import MemoryPlan


def check_memories(memories: Sequence[ExplicitMemory], plan: MemoryPlan, config: ModelConfig) -> None:
    """Raises ValueError if these cannot be one chunk's memories under this plan and model."""
    if len(memories) > plan.memories_per_chunk:
        raise ValueError(
            f"{len(memories)} memories for one query chunk; plan {plan.name!r} reads at most {plan.memories_per_chunk}"
        )
    for memory in memories:
        num_layers, num_pages, num_kept, head_dim = memory.k_LKSD.shape
        expected = plan.memory_shape(config)
        if (num_layers, num_pages, head_dim) != (*expected[:2], expected[3]) or num_kept > expected[2]:
            raise ValueError(
                f"memory {memory.reference_id!r} has shape {tuple(memory.k_LKSD.shape)}; plan {plan.name!r} reads "
                f"({expected[0]}, {expected[1]}, at most {expected[2]}, {expected[3]}): "
                "write it with this plan"
            )
        if num_kept != min(memory.num_reference_tokens, expected[2]):
            raise ValueError(
                f"memory {memory.reference_id!r} keeps {num_kept} of {memory.num_reference_tokens} tokens; plan "
                f"{plan.name!r} keeps {expected[2]}, or all of a shorter reference: write it with this plan"
            )


@dataclass(frozen=True)
class CollatedMemories:
    """The memories of a batch of query chunks. A memory that several chunks read is held once."""

    kv_U2PSD: Tensor
    """Keys and values of the different memories, page by page, padded to S tokens."""
    index_BCM: Tensor
    """Which memory stands where; an absent one points anywhere."""
    num_tokens_BCM: Tensor
    """Tokens of its reference; 0 of an absent one."""
    pages: PageTable
    gain_UPS: Tensor | None = None
    """Added to the scores of the memories' rows: zeros, whose gradient tells what the rows are worth."""

    def layer(self, memory_layer: int) -> Tensor:
        """`kv_2BCKND` of the `memory_layer`-th memory layer."""
        kv_U2KJSD = self.kv_U2PSD[:, :, self.pages.of_heads(memory_layer)]
        kv_X2KJSD = kv_U2KJSD.index_select(0, self.index_BCM.flatten())
        kv_BCM2KJSD = kv_X2KJSD.view(*self.index_BCM.shape, *kv_X2KJSD.shape[1:])
        return kv_BCM2KJSD.permute(3, 0, 1, 4, 2, 5, 6, 7).flatten(4, 6)

    def bias(self, memory_layer: int) -> Tensor:
        """`bias_BCKN`: what to add to the scores: 0 for a row, minus infinity for one that is not shown."""
        visible_BCMKJS = self.pages.visible(memory_layer)[self.num_tokens_BCM]
        visible_BCKN = visible_BCMKJS.permute(0, 1, 3, 2, 4, 5).flatten(3)
        bias_BCKN = self.kv_U2PSD.new_zeros(visible_BCKN.shape).masked_fill_(~visible_BCKN, -torch.inf)
        if self.gain_UPS is None:
            return bias_BCKN
        gain_BCMKJS = self.gain_UPS[:, self.pages.of_heads(memory_layer)][self.index_BCM]
        return bias_BCKN + gain_BCMKJS.permute(0, 1, 3, 2, 4, 5).flatten(3)

    def num_rows(self, memory_layer: int) -> int:
        """N of the `memory_layer`-th memory layer."""
        return self.index_BCM.shape[2] * self.pages.num_rows(memory_layer)


def collate(
    chunk_memories: Sequence[Sequence[Sequence[ExplicitMemory]]],
    num_chunks: int,
    plan: MemoryPlan,
    like: Tensor,
) -> CollatedMemories | None:
    """`chunk_memories[item][chunk]` side by side, padded to `num_chunks`; None if there is not a single memory.

    Of the dtype and on the device of `like`.
    """
    places: dict[int, int] = {}
    unique: list[ExplicitMemory] = []
    num_tokens_BCM = torch.zeros(len(chunk_memories), num_chunks, plan.memories_per_chunk, dtype=torch.long)
    index_BCM = torch.zeros_like(num_tokens_BCM)
    for item, chunks in enumerate(chunk_memories):
        for chunk, memories in enumerate(chunks):
            for place, memory in enumerate(memories):
                if id(memory) not in places:
                    places[id(memory)] = len(unique)
                    unique.append(memory)
                index_BCM[item, chunk, place] = places[id(memory)]
                num_tokens_BCM[item, chunk, place] = memory.num_reference_tokens
    if not unique:
        return None
    num_layers, num_pages, _, head_dim = unique[0].k_LKSD.shape
    kv_U2LKSD = like.new_zeros(len(unique), 2, num_layers, num_pages, plan.tokens_per_page, head_dim)
    for kv_2LKSD, memory in zip(kv_U2LKSD, unique, strict=True):
        kv_2LKSD[0, :, :, : memory.num_kept_tokens] = memory.k_LKSD
        kv_2LKSD[1, :, :, : memory.num_kept_tokens] = memory.v_LKSD
    pages = page_table(plan, num_pages // plan.pages_each, like.device)
    return CollatedMemories(kv_U2LKSD.flatten(2, 3), index_BCM.to(like.device), num_tokens_BCM.to(like.device), pages)
