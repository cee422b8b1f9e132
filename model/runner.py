"""What the engine drives: a transformer, its cache of slots, and the steps prefill and decode.

Knows no tokenizer, no sampling and no sequences: it sees slots and token ids. Synchronous, one caller at a time.

Shape letters: B items, C query chunks, M memories per chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.cached_attention import DecodeAttention, PrefillAttention
from model.kv_cache import KVCache
from model.memory.collate import check_memories, collate
from model.memory.explicit_memory import ExplicitMemory
from model.packing import PackedLayout
from model.plan import MemoryPlan
from model.prefix import PrefixState, encode_prefix
from model.rope import context_start
from model.transformer import Transformer


@dataclass(frozen=True)
class PrefillItem:
    """Context tokens to append to one slot."""

    slot: int
    tokens: Sequence[int]
    """At least one; they follow what the slot holds."""
    chunk_memories: Sequence[Sequence[ExplicitMemory]]
    """One entry for each query chunk these tokens touch, on the context's grid of chunks; an empty entry reads none."""
    num_logits: int = 1
    """After how many of these tokens, the last ones, logits are wanted: 1 to generate, more to score a given text."""


@dataclass(frozen=True)
class StepOutput:
    """What a step gives, one row for each item in the order of the call."""

    logits_BV: Tensor
    """float32: scores of the next token; an item that wants `num_logits` has so many rows, in its tokens' order."""
    attention_BCM: Tensor | None
    """If asked for: share of the attention on each memory, by item and touched chunk, 0 where a memory is absent; the
    mean over memory layers, query heads and the tokens of the chunk that this step ran."""


class ModelRunner:
    """Slots of sequences on one model and one memory plan."""

    def __init__(
        self,
        transformer: Transformer,
        plan: MemoryPlan,
        *,
        prefix_tokens: Sequence[int],
        num_slots: int,
        max_context_tokens: int | None = None,
    ) -> None:
        """`prefix_tokens`: the plan's prefix, encoded. `max_context_tokens`: of each slot, prefix not counted; None
        takes all that the model was trained for. Raises ValueError if plan or length do not fit the model.
        """
        plan.validate(transformer.config)
        self.transformer, self.plan, self.config = transformer, plan, transformer.config
        self.prefix: PrefixState = encode_prefix(transformer, prefix_tokens)
        limit = self.config.max_context_tokens - len(prefix_tokens) - plan.max_reference_tokens
        self.max_context_tokens = limit if max_context_tokens is None else max_context_tokens
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; give at least 1")
        if not 1 <= self.max_context_tokens <= limit:
            raise ValueError(
                f"max_context_tokens is {self.max_context_tokens}; prefix and references take "
                f"{self.config.max_context_tokens - limit} of the model's {self.config.max_context_tokens} positions: "
                f"give 1 to {limit}"
            )
        self.num_slots, self.vocab_size = num_slots, self.config.vocab_size
        self._reads_memories = [False] * num_slots
        with torch.inference_mode():
            self._cache = KVCache(
                self.config,
                plan,
                self.prefix,
                num_slots=num_slots,
                max_context_tokens=self.max_context_tokens,
                dtype=transformer.dtype,
                device=transformer.device,
            )

    def length(self, slot: int) -> int:
        """Context tokens in the slot, prefix not counted."""
        return self._cache.lengths[slot]

    @torch.inference_mode()
    def reset(self, slot: int, *, reads_memories: bool) -> None:
        """Empty the slot; its context will start behind the references' positions, or right behind the prefix."""
        self._check_slots([slot])
        self._cache.clear(slot)
        self._reads_memories[slot] = reads_memories

    @torch.inference_mode()
    def set_memories(self, slot: int, memories: Sequence[ExplicitMemory]) -> None:
        """Overwrite the slot's memory rows in place; absent ones are masked. Context rows stay as they were computed.

        Raises ValueError if a memory does not fit, there are too many, or the slot was reset to read none.
        """
        self._check_slots([slot])
        self._check_readable(slot, memories)
        self._cache.set_memories(slot, memories)

    @torch.inference_mode()
    def prefill(self, items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput:
        """Append tokens, each query chunk reading its own memories; the last chunk's stay in the slot's rows.

        Raises ValueError before anything is changed: no tokens, a full slot, a misfit of chunks and memories.
        """
        self._check_slots([item.slot for item in items])
        for item in items:
            self._check_item(item)
        size, cache = self.plan.query_chunk_tokens, self._cache
        slots = [item.slot for item in items]
        starts, lengths = [cache.lengths[slot] for slot in slots], [len(item.tokens) for item in items]
        offsets = [start % size for start in starts]
        num_chunks = max(len(item.chunk_memories) for item in items)
        # Several chunks need the whole grid; one alone need not be padded to it.
        width = num_chunks * size if num_chunks > 1 else max(map(sum, zip(offsets, lengths, strict=True)))
        for item in items:
            cache.set_memories(item.slot, item.chunk_memories[-1])
            cache.extend(item.slot, len(item.tokens))
        transformer = self.transformer
        layout = PackedLayout(lengths, offsets, width, transformer.device)
        attention = PrefillAttention(
            self.config,
            cache,
            layout,
            num_chunks=num_chunks,
            slots=slots,
            starts=starts,
            memories=collate([item.chunk_memories for item in items], num_chunks, self.plan, like=cache.bias_ZE),
            report_attention=report_attention,
        )
        tokens_T = self._tensor([token for item in items for token in item.tokens])
        first_B = self._tensor([self._position(slot) + start for slot, start in zip(slots, starts, strict=True)])
        hidden_TC = transformer.run(tokens_T, first_B[layout.item_T] + layout.place_T, attention)
        logits_BV = transformer.logits(hidden_TC[layout.last([item.num_logits for item in items])])
        return StepOutput(logits_BV, attention.attention_share() if report_attention else None)

    @torch.inference_mode()
    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, report_attention: bool = False) -> StepOutput:
        """Append one token to each slot, reading the memories in its rows.

        Raises ValueError before anything is changed: a slot given twice, a full one, an unknown token id.
        """
        self._check_slots(slots)
        if len(slots) != len(tokens):
            raise ValueError(f"{len(slots)} slots and {len(tokens)} tokens; give one token for each slot")
        for slot, token in zip(slots, tokens, strict=True):
            self._check_tokens(slot, [token])
        positions_B = self._tensor([self._position(slot) + self._cache.lengths[slot] for slot in slots])
        for slot in slots:
            self._cache.extend(slot, 1)
        attention = DecodeAttention(self.config, self._cache, slots, report_attention=report_attention)
        hidden_BC = self.transformer.run(self._tensor(tokens), positions_B, attention)
        share_BCM = attention.attention_share() if report_attention else None
        return StepOutput(self.transformer.logits(hidden_BC), share_BCM)

    def _position(self, slot: int) -> int:
        return context_start(self.plan, self.prefix.num_tokens, reads_memories=self._reads_memories[slot])

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.transformer.device)

    def _check_slots(self, slots: Sequence[int]) -> None:
        if not slots:
            raise ValueError("no slots given; give at least one")
        if len(set(slots)) != len(slots) or not all(0 <= slot < self.num_slots for slot in slots):
            raise ValueError(f"slots are {list(slots)}; give each once, from 0 to {self.num_slots - 1}")

    def _check_item(self, item: PrefillItem) -> None:
        self._check_tokens(item.slot, item.tokens)
        size, start = self.plan.query_chunk_tokens, self._cache.lengths[item.slot]
        num_touched = (start + len(item.tokens) - 1) // size - start // size + 1
        if len(item.chunk_memories) != num_touched:
            raise ValueError(
                f"chunk_memories has {len(item.chunk_memories)} entries; tokens {start} to "
                f"{start + len(item.tokens) - 1} of slot {item.slot} touch {num_touched} chunks of {size}: "
                "give one entry for each"
            )
        if not 1 <= item.num_logits <= len(item.tokens):
            raise ValueError(
                f"num_logits is {item.num_logits} for {len(item.tokens)} tokens of slot {item.slot}; "
                f"give 1 to {len(item.tokens)}"
            )
        for memories in item.chunk_memories:
            self._check_readable(item.slot, memories)

    def _check_readable(self, slot: int, memories: Sequence[ExplicitMemory]) -> None:
        check_memories(memories, self.plan, self.config)
        if memories and not self._reads_memories[slot]:
            raise ValueError(
                f"{len(memories)} memories for slot {slot}, which was reset to read none; reset it to read them"
            )

    def _check_tokens(self, slot: int, tokens: Sequence[int]) -> None:
        if not tokens:
            raise ValueError(f"no tokens for slot {slot}; give at least one")
        if not all(0 <= token < self.vocab_size for token in tokens):
            raise ValueError(
                f"a token id of slot {slot} is outside the vocabulary; ids go from 0 to {self.vocab_size - 1}"
            )
        total = self._cache.lengths[slot] + len(tokens)
        if total > self.max_context_tokens:
            raise ValueError(
                f"slot {slot} would hold {total} context tokens; the limit is {self.max_context_tokens}: "
                "shorten the prompt or raise max_context_tokens"
            )
