"""References to explicit memories: encode, choose tokens, keep their keys and values (paper 3.2 and 3.3).

Knows token ids, no text; stores nothing.

Shape letters: B references, T packed tokens, W padded tokens, A fused heads, H query heads, K KV heads, G = H/K,
S kept tokens, D head dimension, L memory layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.attention import CausalAttention
from model.memory.explicit_memory import ExplicitMemory
from model.memory.sparsify import EncodedLayer, most_scored, score_tokens
from model.packing import PackedLayout
from model.plan import MemoryPlan
from model.prefix import PrefixState
from model.rope import reference_start
from model.transformer import Transformer


class MemoryWriter:
    """Writes the memories of one model under one plan. References never see each other."""

    def __init__(self, transformer: Transformer, plan: MemoryPlan, prefix: PrefixState, batch_size: int = 16) -> None:
        """`prefix`: the plan's prefix on this model (`ModelRunner.prefix` or `encode_prefix`). `batch_size`: references
        encoded at once. Raises ValueError if the plan does not fit the model."""
        plan.validate(transformer.config)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self._transformer, self._plan, self._prefix, self._batch_size = transformer, plan, prefix, batch_size

    @torch.inference_mode()
    def write(
        self, references: Sequence[Sequence[int]], reference_ids: Sequence[str] | None = None
    ) -> list[ExplicitMemory]:
        """One memory for each reference (token ids without prefix), in order.

        Raises ValueError if a reference is empty or longer than the plan allows, or a token id is unknown.
        """
        ids = [""] * len(references) if reference_ids is None else list(reference_ids)
        if len(ids) != len(references):
            raise ValueError(f"{len(references)} references and {len(ids)} reference ids; give one id for each")
        for index, tokens in enumerate(references):
            self._check(index, tokens)
        memories = []
        for start in range(0, len(references), self._batch_size):
            batch = slice(start, start + self._batch_size)
            memories += self._write_batch(references[batch], ids[batch])
        return memories

    def _write_batch(self, references: Sequence[Sequence[int]], ids: Sequence[str]) -> list[ExplicitMemory]:
        transformer, prefix = self._transformer, self._prefix
        lengths = [len(tokens) for tokens in references]
        layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), transformer.device)
        tokens_T = torch.tensor([token for tokens in references for token in tokens], device=transformer.device)
        attention = _WritingAttention(transformer, self._plan, prefix, layout, references)
        transformer.run(tokens_T, reference_start(prefix.num_tokens) + layout.place_T, attention)
        kv_2BLKSD = torch.stack(attention.kv_2BKSD, dim=2)
        places_BLKS = torch.stack(attention.places_BKS, dim=1).to(torch.uint8)
        memories = []
        for item, (length, reference_id) in enumerate(zip(lengths, ids, strict=True)):
            kept = min(length, self._plan.tokens_per_memory)
            # Cloned: a memory must not keep the whole batch alive.
            k_LKSD, v_LKSD = kv_2BLKSD[0, item, :, :, :kept].clone(), kv_2BLKSD[1, item, :, :, :kept].clone()
            memories.append(
                ExplicitMemory(k_LKSD, v_LKSD, places_BLKS[item, :, :, :kept].clone(), length, reference_id)
            )
        return memories

    def _check(self, index: int, tokens: Sequence[int]) -> None:
        limit, vocab_size = self._plan.max_reference_tokens, self._transformer.config.vocab_size
        if not 1 <= len(tokens) <= limit:
            raise ValueError(f"reference {index} has {len(tokens)} tokens; give 1 to {limit}: cut the document shorter")
        if not all(0 <= token < vocab_size for token in tokens):
            raise ValueError(
                f"a token id of reference {index} is outside the vocabulary; ids go from 0 to {vocab_size - 1}"
            )


class _WritingAttention:
    """Causal attention that keeps the chosen tokens of every memory layer and ends after the last one."""

    def __init__(
        self,
        transformer: Transformer,
        plan: MemoryPlan,
        prefix: PrefixState,
        layout: PackedLayout,
        references: Sequence[Sequence[int]],
    ) -> None:
        self._config, self._plan, self._layout, self._references = transformer.config, plan, layout, references
        self._is_token_BW = layout.is_token()
        self._causal = CausalAttention(transformer.config, layout, transformer.dtype, prefix.kv_2KPD)
        self.kv_2BKSD: list[Tensor] = []
        self.places_BKS: list[Tensor] = []

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor | None:
        """See `model.transformer.AttentionPass`. The last memory layer needs neither output nor MLP (paper A.2)."""
        layers = self._plan.memory_layers
        if layer_index in layers:
            self._keep(layers.index(layer_index), plain_TAD, rotated_TAD)
        return None if layer_index == layers[-1] else self._causal.attend(layer_index, plain_TAD, rotated_TAD)

    def _keep(self, memory_layer: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> None:
        q_BKGWD, k_BKWD, _ = self._split(plain_TAD)
        q_rotated_BKGWD, k_rotated_BKWD, v_BKWD = self._split(rotated_TAD)
        layer = EncodedLayer(q_BKGWD, k_BKWD, q_rotated_BKGWD, k_rotated_BKWD, v_BKWD)
        scores_BKW = score_tokens(layer, memory_layer, self._plan, self._references, self._is_token_BW)
        places_BKS = most_scored(scores_BKW, self._is_token_BW, self._plan.tokens_per_memory)
        index_BKSD = places_BKS[..., None].expand(-1, -1, -1, self._config.head_dim)
        self.kv_2BKSD.append(torch.stack((k_rotated_BKWD.gather(2, index_BKSD), v_BKWD.gather(2, index_BKSD))))
        self.places_BKS.append(places_BKS)

    def _split(self, fused_TAD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        fused_BAWD = self._layout.pad(fused_TAD).transpose(1, 2)
        q_BHWD, k_BKWD, v_BKWD = fused_BAWD.split((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
        return q_BHWD.unflatten(1, (config.num_kv_heads, -1)), k_BKWD, v_BKWD
