"""References to explicit memories: encode, choose tokens, keep their keys and values (paper 3.2 and 3.3).

Knows token ids, no text; stores nothing.

Shape letters: B references, T packed tokens, R padded tokens of a reference, W of a sequence (what precedes the
reference, and R, or 2R where each reference stands twice), A fused heads, H query heads, K KV heads, G pages of a
layer, S kept tokens of a page, D head dimension, L memory layers.
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
    transformer: Transformer,
    plan: MemoryPlan,
    prefix: PrefixState,
    references: Sequence[Sequence[int]],
    preceding: Sequence[Sequence[int]] = (),
) -> EncodedReferences:
    """One pass over all references, each of 1 to R known tokens, up to the last memory layer.

    `preceding`: what stands directly before each reference in its document; the plan says how much of its end is in
    view. Empty: nothing before any. With gradient where it is enabled: the choice of tokens has none, what is kept of
    them has. Raises ValueError if the plan chooses tokens with another token scorer than the model's.
    """
    check_token_scorer(plan, transformer.token_scorer)
    seen = [plan.in_view(tokens) for tokens in preceding or [()] * len(references)]
    if not plan.repeats_references:
        return _encode(transformer, plan, prefix, references, seen)
    if not torch.is_grad_enabled():
        return _encode(transformer, plan, prefix, references, seen, repeated=True)
    # The repeats only choose. Kept out of the graph, they cost a pass; in it, they would double the way back as well.
    with torch.no_grad():
        chosen = _encode(transformer, plan, prefix, references, seen, repeated=True)
    return _encode(transformer, plan, prefix, references, seen, places_BLKS=chosen.places_BLKS)


def _encode(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix: PrefixState,
    references: Sequence[Sequence[int]],
    seen: Sequence[Sequence[int]],
    *,
    repeated: bool = False,
    places_BLKS: Tensor | None = None,
) -> EncodedReferences:
    """`repeated`: each reference stands twice in its sequence. `places_BLKS`: keep these and choose none."""
    runs = 2 if repeated else 1
    sequences = [[*before, *[*tokens] * runs] for before, tokens in zip(seen, references, strict=True)]
    lengths = [len(tokens) for tokens in sequences]
    layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), transformer.device)
    tokens_T = torch.tensor([token for tokens in sequences for token in tokens], device=transformer.device)
    attention = _WritingAttention(
        transformer, plan, prefix, layout, references, seen, repeated=repeated, places_BLKS=places_BLKS
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
    """Writes the memories of one model under one plan. None sees another of its batch."""

    def __init__(self, transformer: Transformer, plan: MemoryPlan, prefix: PrefixState, batch_size: int = 16) -> None:
        """`prefix`: the plan's prefix on this model (`ModelRunner.prefix` or `encode_prefix`). `batch_size`: references
        encoded at once. Raises ValueError if the plan does not fit the model."""
        plan.validate(transformer.config)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self._transformer, self._plan, self._prefix, self._batch_size = transformer, plan, prefix, batch_size

    @torch.inference_mode()
    def write(
        self,
        references: Sequence[Sequence[int]],
        reference_ids: Sequence[str] | None = None,
        preceding: Sequence[Sequence[int]] | None = None,
    ) -> list[ExplicitMemory]:
        """One memory for each reference (token ids without prefix), in order.

        `preceding`: the tokens that stand directly before each in its document; None: none before any. Raises
        ValueError if a reference is empty or longer than the plan allows, or a token id is unknown.
        """
        ids = [""] * len(references) if reference_ids is None else list(reference_ids)
        before = [()] * len(references) if preceding is None else list(preceding)
        if not len(ids) == len(before) == len(references):
            raise ValueError(
                f"{len(references)} references, {len(ids)} reference ids and {len(before)} preceding texts; give one "
                "for each"
            )
        for index, tokens in enumerate(references):
            self._check(index, tokens, before[index])
        memories = []
        for start in range(0, len(references), self._batch_size):
            batch = slice(start, start + self._batch_size)
            memories += self._write_batch(references[batch], ids[batch], before[batch])
        return memories

    def _write_batch(
        self, references: Sequence[Sequence[int]], ids: Sequence[str], preceding: Sequence[Sequence[int]]
    ) -> list[ExplicitMemory]:
        encoded = encode_references(self._transformer, self._plan, self._prefix, references, preceding)
        memories = []
        for item, (tokens, reference_id) in enumerate(zip(references, ids, strict=True)):
            kept = min(len(tokens), self._plan.tokens_per_page)
            # Cloned: a memory must not keep the whole batch alive.
            k_LKSD, v_LKSD = (kv_LKSD[:, :, :kept].clone() for kv_LKSD in encoded.kv_2BLKSD[:, item])
            places_LKS = encoded.places_BLKS[item, :, :, :kept].clone()
            memories.append(ExplicitMemory(k_LKSD, v_LKSD, places_LKS, len(tokens), reference_id))
        return memories

    def _check(self, index: int, tokens: Sequence[int], preceding: Sequence[int]) -> None:
        limit, vocab_size = self._plan.max_reference_tokens, self._transformer.config.vocab_size
        if not 1 <= len(tokens) <= limit:
            raise ValueError(f"reference {index} has {len(tokens)} tokens; give 1 to {limit}: cut the document shorter")
        if not all(0 <= token < vocab_size for token in (*preceding, *tokens)):
            raise ValueError(
                f"a token id of reference {index}, or of what precedes it, is outside the vocabulary; ids go from 0 to "
                f"{vocab_size - 1}"
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
        seen: Sequence[Sequence[int]],
        *,
        repeated: bool,
        places_BLKS: Tensor | None,
    ) -> None:
        self._config, self._plan, self._layout, self._references = transformer.config, plan, layout, references
        self._prefix, self._repeated, self._scorer = prefix, repeated, transformer.token_scorer
        self._rotary = transformer.rotary
        self._pages_LK = plan.pages(transformer.config.num_kv_heads)
        pages_of_layer = [sum(pages_K) for pages_K in self._pages_LK]
        self._places_LBGS = None if places_BLKS is None else places_BLKS.flatten(1, 2).split(pages_of_layer, dim=1)
        lengths_B = torch.tensor([len(tokens) for tokens in references], device=transformer.device)
        columns_R = torch.arange(max(map(len, references)), device=transformer.device)
        self._is_token_BR = columns_R < lengths_B[:, None]
        # Where a reference stands, and its repeat: right behind what precedes it, and right behind it. (Columns past
        # the end of either are padding, never read.)
        first_B = torch.tensor([len(tokens) for tokens in seen], device=transformer.device)
        self._column_BR = (first_B[:, None] + columns_R).clamp(max=layout.width - 1)
        self._repeat_column_BR = (self._column_BR + lengths_B[:, None]).clamp(max=layout.width - 1)
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
        memory_layer = self._plan.memory_layers.index(layer_index)
        plain = self._heads(plain_TAD, self._column_BR)
        _, k_BKRD, v_BKRD = plain
        pages_K = self._pages_LK[memory_layer]
        if self._places_LBGS is not None:
            places_BGS = self._places_LBGS[memory_layer].long()
        else:
            rotated = self._heads(rotated_TAD, self._column_BR)
            repeat = self._repeat(layer_index, rotated_TAD) if self._repeated else None
            layer = EncodedLayer(*plain[:2], *rotated, repeat)
            scores_BKR = score_tokens(
                layer, memory_layer, self._plan, self._references, self._is_token_BR, self._scorer
            )
            self.scores.append(scores_BKR)
            places_BGS = choose_pages(scores_BKR, self._is_token_BR, pages_K, self._plan.tokens_per_page)
        head_G = heads_of_pages(pages_K, places_BGS.device)
        index_BGSD = places_BGS[..., None].expand(-1, -1, -1, self._config.head_dim)
        k_BGSD, v_BGSD = (heads_BKRD[:, head_G].gather(2, index_BGSD) for heads_BKRD in (k_BKRD, v_BKRD))
        # All memories share one interval (paper 3.2): a key is turned as if nothing had preceded its reference.
        positions_BGS = reference_start(self._prefix.num_tokens) + places_BGS
        self.kept[memory_layer] = (torch.stack((self._rotary.turned(k_BGSD, positions_BGS), v_BGSD)), places_BGS)

    def _repeat(self, layer_index: int, rotated_TAD: Tensor) -> Repeat:
        q_BKGRD, k_BKRD, _ = self._heads(rotated_TAD, self._repeat_column_BR)
        return Repeat(q_BKGRD, k_BKRD, self._prefix.kv_2KPD[layer_index][0])

    def _heads(self, fused_TAD: Tensor, column_BR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values at these columns."""
        fused_BWAD = self._layout.pad(fused_TAD)
        index_BRAD = column_BR[:, :, None, None].expand(-1, -1, *fused_BWAD.shape[2:])
        return self._split(fused_BWAD.gather(1, index_BRAD).transpose(1, 2))

    def _split(self, fused_BARD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        q_BHRD, k_BKRD, v_BKRD = fused_BARD.split((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
        return q_BHRD.unflatten(1, (config.num_kv_heads, -1)), k_BKRD, v_BKRD
