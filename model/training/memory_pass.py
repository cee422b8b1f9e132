"""Writing and reading memories in one graph: the gradient goes from a context's loss through what it read.

The same pieces as serving, without a cache: references are encoded as the writer does, and whole contexts run at once,
each query chunk reading its own memories. Prefix and references are computed anew in every step, with its weights.

Shape letters: B contexts, C query chunks, W padded tokens, T packed tokens, A fused heads, H query heads, K KV heads,
D head dimension, E context rows (prefix included), N memory rows, X queries of one KV head in one chunk, I = N + E,
J scored tokens, U references, P pages of a memory, S kept tokens of one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.attention import CausalAttention, causal_bias, joint_attention, joint_bias
from model.config import ModelConfig
from model.memory.collate import CollatedMemories
from model.memory.pages import page_table
from model.memory.writer import encode_references
from model.packing import PackedLayout
from model.plan import MemoryPlan
from model.prefix import PrefixState
from model.rope import context_start
from model.training.batch import Context
from model.transformer import AttentionPass, Transformer

_LIKE_TOKENS = 64
"""Contexts up to this length are padded alike."""


def write_memories(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix: PrefixState,
    references: Sequence[Sequence[int]],
    preceding: Sequence[Sequence[int]] = (),
) -> Tensor | None:
    """`kv_U2LKSD`: the memories of a batch's references, in order; None if there are none."""
    if not references:
        return None
    return encode_references(transformer, plan, prefix, references, preceding).kv_2BLKSD.transpose(0, 1)


def scored_hidden(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix: PrefixState,
    memory_kv_U2LKSD: Tensor | None,
    reference_lengths: Sequence[int],
    contexts: Sequence[Context],
    memory_gain_UPS: Tensor | None = None,
) -> Tensor:
    """`hidden_JC` that predict the scored tokens of all contexts, in order: one packed pass over them.

    `memory_gain_UPS`: see `CollatedMemories`.
    """
    device = transformer.device
    reading = [index for index, context in enumerate(contexts) if context.reads_memories]
    plain = [index for index, context in enumerate(contexts) if not context.reads_memories]
    passes: list[tuple[int, AttentionPass]] = []
    positions = []
    order = []
    for group in (*_of_like_length(reading, contexts), *_of_like_length(plain, contexts)):
        order += group
        of_group = [contexts[index] for index in group]
        lengths = [len(context.tokens) for context in of_group]
        attention: AttentionPass
        reads_memories = of_group[0].reads_memories
        if reads_memories:
            chunks = -(-max(lengths) // plan.query_chunk_tokens)
            width = chunks * plan.query_chunk_tokens if chunks > 1 else max(lengths)
            layout = PackedLayout(lengths, [0] * len(lengths), width, device)
            chosen = _choose(plan, memory_kv_U2LKSD, memory_gain_UPS, reference_lengths, of_group, chunks)
            attention = ReadingAttention(transformer.config, plan, layout, prefix, chosen, chunks, transformer.dtype)
        else:
            layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), device)
            attention = CausalAttention(transformer.config, layout, transformer.dtype, prefix.kv_2KPD)
        passes.append((sum(lengths), attention))
        positions.append(context_start(plan, prefix.num_tokens, reads_memories=reads_memories) + layout.place_T)
    tokens_T = torch.tensor([token for index in order for token in contexts[index].tokens], device=device)
    hidden_TC = transformer.run(tokens_T, torch.cat(positions), _SideBySide(passes))
    return hidden_TC[torch.tensor(_predicting_rows(contexts, order), device=device)]


def _of_like_length(indices: Sequence[int], contexts: Sequence[Context]) -> Iterator[list[int]]:
    """Attention pads a group to its longest context: that has at most `_LIKE_TOKENS` tokens, or twice the least."""
    by_size: dict[int, list[int]] = {}
    for index in indices:
        by_size.setdefault(((len(contexts[index].tokens) - 1) // _LIKE_TOKENS).bit_length(), []).append(index)
    yield from by_size.values()


def _predicting_rows(contexts: Sequence[Context], order: Sequence[int]) -> list[int]:
    """Packed rows that predict the scored tokens, context by context as given; `order` is how they are packed."""
    end = 0
    rows: dict[int, range] = {}
    for index in order:
        end += len(contexts[index].tokens)
        rows[index] = range(end - contexts[index].num_scored - 1, end - 1)
    return [row for index in range(len(contexts)) for row in rows[index]]


def _choose(
    plan: MemoryPlan,
    memory_kv_U2LKSD: Tensor | None,
    memory_gain_UPS: Tensor | None,
    reference_lengths: Sequence[int],
    contexts: Sequence[Context],
    num_chunks: int,
) -> CollatedMemories | None:
    """The batch's memories with who reads which; None if nobody reads any."""
    if memory_kv_U2LKSD is None:
        return None
    # As lists first: a tensor is slow to fill one element at a time.
    num_places, absent = plan.memories_per_chunk, (0, 0)
    chosen = []
    for context in contexts:
        rows = [[(one, reference_lengths[one]) for one in row] for row in context.chunk_references or ()]
        rows += [[]] * (num_chunks - len(rows))
        chosen.append([row + [absent] * (num_places - len(row)) for row in rows])
    index_BCM, num_tokens_BCM = torch.tensor(chosen, device=memory_kv_U2LKSD.device).unbind(dim=-1)
    pages = page_table(plan, memory_kv_U2LKSD.shape[3] // plan.pages_each, memory_kv_U2LKSD.device)
    kv_U2PSD = _full_pages(memory_kv_U2LKSD, plan).flatten(2, 3)
    return CollatedMemories(kv_U2PSD, index_BCM, num_tokens_BCM, pages, memory_gain_UPS)


def _full_pages(kv_U2LKSD: Tensor, plan: MemoryPlan) -> Tensor:
    """Padded to full pages, where all references of a batch are shorter."""
    return functional.pad(kv_U2LKSD, (0, 0, 0, plan.tokens_per_page - kv_U2LKSD.shape[4]))


class ReadingAttention:
    """Whole contexts from their first token on; in the memory layers every query chunk also reads its memories."""

    def __init__(
        self,
        config: ModelConfig,
        plan: MemoryPlan,
        layout: PackedLayout,
        prefix: PrefixState,
        memories: CollatedMemories | None,
        num_chunks: int,
        dtype: torch.dtype,
    ) -> None:
        """`layout`: `num_chunks` chunks of equal width."""
        self._config, self._plan, self._layout, self._prefix = config, plan, layout, prefix
        self._memories, self._num_chunks = memories, num_chunks
        self._causal = CausalAttention(config, layout, dtype, prefix.kv_2KPD)
        if memories is None:
            return
        device = layout.item_T.device
        num_rows = prefix.num_tokens + layout.width
        bias_WE = causal_bias(torch.arange(layout.width, device=device), prefix.num_tokens, num_rows, dtype)
        bias_CXE = bias_WE.unflatten(0, (num_chunks, -1)).repeat(1, config.heads_per_kv_head, 1)
        self._bias_BCXE = bias_CXE.expand(layout.num_items, -1, -1, -1)

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        """See `model.transformer.AttentionPass`."""
        memories, layers = self._memories, self._plan.memory_layers
        if memories is None or layer_index not in layers or not memories.num_rows(layers.index(layer_index)):
            return self._causal.attend(layer_index, plain_TAD, rotated_TAD)
        config, memory_layer = self._config, layers.index(layer_index)
        fused_BAWD = self._layout.pad(rotated_TAD).transpose(1, 2)
        q_BHWD, kv_B2KWD = fused_BAWD[:, : config.num_heads], fused_BAWD[:, config.num_heads :].unflatten(1, (2, -1))
        prefix_2BKPD = self._prefix.kv_2KPD[layer_index][:, None].expand(-1, len(q_BHWD), -1, -1, -1)
        kv_2BKED = torch.cat((prefix_2BKPD, kv_B2KWD.transpose(0, 1)), dim=3)
        q_BKGCQD = q_BHWD.unflatten(1, (config.num_kv_heads, -1)).unflatten(3, (self._num_chunks, -1))
        q_BCKGQD = q_BKGCQD.permute(0, 3, 1, 2, 4, 5)
        bias_BCKXI = joint_bias(memories.bias(memory_layer).to(self._bias_BCXE.dtype), self._bias_BCXE)
        y_BCKXD, _ = joint_attention(q_BCKGQD.flatten(3, 4), memories.layer(memory_layer), kv_2BKED, bias_BCKXI)
        y_BCQKGD = y_BCKXD.reshape(q_BCKGQD.shape).permute(0, 1, 4, 2, 3, 5)
        return self._layout.unpad(y_BCQKGD.flatten(3).flatten(1, 2))


class _SideBySide:
    """Several attention passes over consecutive runs of the packed tokens."""

    def __init__(self, passes: Sequence[tuple[int, AttentionPass]]) -> None:
        """Number of tokens, and the pass that serves them."""
        self._sizes = [size for size, _ in passes]
        self._passes = [attention for _, attention in passes]

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        """See `model.transformer.AttentionPass`."""
        parts = zip(self._passes, plain_TAD.split(self._sizes), rotated_TAD.split(self._sizes), strict=True)
        outputs = [attention.attend(layer_index, plain, rotated) for attention, plain, rotated in parts]
        assert all(y_TE is not None for y_TE in outputs)
        return torch.cat([y_TE for y_TE in outputs if y_TE is not None])
