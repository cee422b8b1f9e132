"""References to explicit memories: encode, choose tokens, keep their keys and values (paper 3.2 and 3.3).

Knows token ids, no text; stores nothing.

Shape letters: B references, T packed tokens, R padded tokens of a reference, W of a sequence (R, or 2R where each
reference stands twice), A fused heads, H query heads, K KV heads, G pages of a layer, S kept tokens of a page,
D head dimension, L memory layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import CausalAttention
from model.memory.explicit_memory import ExplicitMemory
from model.memory.pages import heads_of_pages
from model.memory.sparsify import EncodedLayer, Repeat, choose_pages, score_tokens
from model.packing import PackedLayout
from model.plan import MemoryPlan
from model.prefix import PrefixState
from model.rope import reference_start
from model.token_scorer import check_token_scorer
from model.transformer import Transformer


@dataclass(frozen=True)
class EncodedReferences:
    """The memories of a batch as they come out of the model, all padded to the same number of kept tokens."""

    kv_2BLKSD: Tensor
    """Rotated keys, and values: pages, K for a layer in the mean, in the order of `model.memory.pages`."""
    places_BLKS: Tensor
    """uint8: which token of the reference each row was; meaningless for padding, which comes last."""
    scores_BLKR: Tensor | None
    """What tokens were chosen by (`score_tokens`); None if they were given."""


def encode_references(
    transformer: Transformer, plan: MemoryPlan, prefix: PrefixState, references: Sequence[Sequence[int]]
) -> EncodedReferences:
    """One pass over all references, each of 1 to R known tokens, up to the last memory layer.

    With gradient where it is enabled: the choice of tokens has none, what is kept of them has. Raises ValueError if the
    plan chooses tokens with another token scorer than the model's.
    """
    check_token_scorer(plan, transformer.token_scorer)
    if not plan.repeats_references:
        return _encode(transformer, plan, prefix, references)
    if not torch.is_grad_enabled():
        return _encode(transformer, plan, prefix, references, repeated=True)
    # The repeats only choose. Kept out of the graph, they cost a pass; in it, they would double the way back as well.
    with torch.no_grad():
        chosen = _encode(transformer, plan, prefix, references, repeated=True)
    return _encode(transformer, plan, prefix, references, places_BLKS=chosen.places_BLKS)


def _encode(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix: PrefixState,
    references: Sequence[Sequence[int]],
    *,
    repeated: bool = False,
    places_BLKS: Tensor | None = None,
) -> EncodedReferences:
    """`repeated`: each reference stands twice in its sequence. `places_BLKS`: keep these and choose none."""
    runs = 2 if repeated else 1
    lengths = [runs * len(tokens) for tokens in references]
    layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), transformer.device)
    tokens_T = torch.tensor([token for tokens in references for token in [*tokens] * runs], device=transformer.device)
    attention = _WritingAttention(
        transformer, plan, prefix, layout, references, repeated=repeated, places_BLKS=places_BLKS
    )
    transformer.run(tokens_T, reference_start(prefix.num_tokens) + layout.place_T, attention)
    kept = [attention.kept[memory_layer] for memory_layer in range(len(plan.memory_layers))]
    shape = plan.memory_shape(transformer.config)[:2]
    return EncodedReferences(
        torch.cat([kv_2BGSD for kv_2BGSD, _ in kept], dim=2).unflatten(2, shape),
        torch.cat([places_BGS for _, places_BGS in kept], dim=1).unflatten(1, shape).to(torch.uint8),
        torch.stack(attention.scores, dim=1) if attention.scores else None,
    )


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
        encoded = encode_references(self._transformer, self._plan, self._prefix, references)
        memories = []
        for item, (tokens, reference_id) in enumerate(zip(references, ids, strict=True)):
            kept = min(len(tokens), self._plan.tokens_per_page)
            # Cloned: a memory must not keep the whole batch alive.
            k_LKSD, v_LKSD = (kv_LKSD[:, :, :kept].clone() for kv_LKSD in encoded.kv_2BLKSD[:, item])
            places_LKS = encoded.places_BLKS[item, :, :, :kept].clone()
            memories.append(ExplicitMemory(k_LKSD, v_LKSD, places_LKS, len(tokens), reference_id))
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
        *,
        repeated: bool,
        places_BLKS: Tensor | None,
    ) -> None:
        self._config, self._plan, self._layout, self._references = transformer.config, plan, layout, references
        self._prefix, self._repeated, self._scorer = prefix, repeated, transformer.token_scorer
        self._pages_LK = plan.pages(transformer.config.num_kv_heads)
        pages_of_layer = [sum(pages_K) for pages_K in self._pages_LK]
        self._places_LBGS = None if places_BLKS is None else places_BLKS.flatten(1, 2).split(pages_of_layer, dim=1)
        lengths_B = torch.tensor([len(tokens) for tokens in references], device=transformer.device)
        columns_R = torch.arange(max(map(len, references)), device=transformer.device)
        self._is_token_BR = columns_R < lengths_B[:, None]
        # Where a repeat stands: right behind its reference. (Columns past a repeat's end are padding, never read.)
        self._repeat_column_BR = (lengths_B[:, None] + columns_R).clamp(max=layout.width - 1)
        self._causal = CausalAttention(transformer.config, layout, transformer.dtype, prefix.kv_2KPD)
        # Memory layer -> kept keys and values, and their places. By number: with activation checkpointing a layer is
        # run twice.
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.scores: list[Tensor] = []

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor | None:
        """See `model.transformer.AttentionPass`. The last memory layer needs neither output nor MLP (paper A.2)."""
        layers = self._plan.memory_layers
        if layer_index in layers:
            self._keep(layer_index, plain_TAD, rotated_TAD)
        return None if layer_index == layers[-1] else self._causal.attend(layer_index, plain_TAD, rotated_TAD)

    def _keep(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> None:
        memory_layer, num_columns = self._plan.memory_layers.index(layer_index), self._is_token_BR.shape[1]
        rotated_BAWD = self._layout.pad(rotated_TAD).transpose(1, 2)
        rotated = self._split(rotated_BAWD[:, :, :num_columns])
        _, k_rotated_BKRD, v_BKRD = rotated
        pages_K = self._pages_LK[memory_layer]
        if self._places_LBGS is not None:
            places_BGS = self._places_LBGS[memory_layer].long()
        else:
            plain_BAWD = self._layout.pad(plain_TAD).transpose(1, 2)
            q_BKGRD, k_BKRD, _ = self._split(plain_BAWD[:, :, :num_columns])
            repeat = self._repeat(layer_index, rotated_BAWD) if self._repeated else None
            layer = EncodedLayer(q_BKGRD, k_BKRD, *rotated, repeat)
            scores_BKR = score_tokens(
                layer, memory_layer, self._plan, self._references, self._is_token_BR, self._scorer
            )
            self.scores.append(scores_BKR)
            places_BGS = choose_pages(scores_BKR, self._is_token_BR, pages_K, self._plan.tokens_per_page)
        head_G = heads_of_pages(pages_K, places_BGS.device)
        index_BGSD = places_BGS[..., None].expand(-1, -1, -1, self._config.head_dim)
        k_BGRD, v_BGRD = k_rotated_BKRD[:, head_G], v_BKRD[:, head_G]
        self.kept[memory_layer] = (
            torch.stack((k_BGRD.gather(2, index_BGSD), v_BGRD.gather(2, index_BGSD))),
            places_BGS,
        )

    def _repeat(self, layer_index: int, rotated_BAWD: Tensor) -> Repeat:
        index_BARD = self._repeat_column_BR[:, None, :, None].expand(
            -1, rotated_BAWD.shape[1], -1, rotated_BAWD.shape[3]
        )
        q_BKGRD, k_BKRD, _ = self._split(rotated_BAWD.gather(2, index_BARD))
        return Repeat(q_BKGRD, k_BKRD, self._prefix.kv_2KPD[layer_index][0])

    def _split(self, fused_BARD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        q_BHRD, k_BKRD, v_BKRD = fused_BARD.split((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
        return q_BHRD.unflatten(1, (config.num_kv_heads, -1)), k_BKRD, v_BKRD
