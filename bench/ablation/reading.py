"""Memories written for all layers, read under a variation: layers picked, keys turned to other positions, other sinks.

Everything that serving does not offer is here; what it offers is the runner's and the writer's own.

Shape letters: L memory layers, K KV heads, S kept tokens, P prefix tokens, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.ablation.variations import Variation
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from model.runner import ModelRunner, PrefillItem, StepOutput
from model.tokenizer import Tokenizer
from model.transformer import Transformer


def writer(transformer: Transformer, tokenizer: Tokenizer, variation: Variation, batch_size: int = 16) -> MemoryWriter:
    """Writes what every variation of this writing key reads: memories of all layers."""
    has_prefix = variation.sink not in ("references without", "none")
    prefix = encode_prefix(transformer, tokenizer.encode_special(variation.plan.prefix) if has_prefix else [])
    layers = tuple(range(transformer.config.num_layers))
    return MemoryWriter(transformer, replace(variation.plan, memory_layers=layers), prefix, batch_size)


class VariedReader(ModelRunner):
    """A runner whose contexts stand where the variation says."""

    def __init__(
        self, transformer: Transformer, tokenizer: Tokenizer, variation: Variation, *, num_slots: int, room: int
    ) -> None:
        """`room`: context tokens of a slot. Raises ValueError as `ModelRunner` does."""
        self._variation = variation
        prefix = tokenizer.encode_special(variation.plan.prefix)
        self._written_prefix = encode_prefix(transformer, prefix)
        read_prefix = [] if variation.sink in ("behind memories only", "none") else prefix
        super().__init__(
            transformer, _read_plan(variation, len(prefix)), prefix_tokens=read_prefix, num_slots=num_slots,
            max_context_tokens=room,
        )  # fmt: skip
        self._starts = [0] * num_slots

    def memories(self, written: Sequence[ExplicitMemory]) -> tuple[ExplicitMemory, ...]:
        """What one context reads of the memories of its references, in their order."""
        read, start = [], 0
        for memory in written[: self._variation.plan.memories_per_chunk]:
            picked = self._of_layers(memory)
            if self._variation.sink == "references without":
                picked = shifted(picked, self.prefix.num_tokens, self.config.rope_theta)
            match self._variation.positions:
                case "sequential":
                    picked = shifted(picked, start, self.config.rope_theta)
                    start += memory.num_reference_tokens
                case "right-aligned":
                    room = self._variation.plan.max_reference_tokens - memory.num_reference_tokens
                    picked = shifted(picked, room, self.config.rope_theta)
            if self._variation.sink == "in every memory":
                picked = self._with_prefix(picked)
            read.append(picked)
        return tuple(read)

    @torch.inference_mode()
    def prefill(self, items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput:
        """See `ModelRunner.prefill`; a slot's first memories decide where its context stands."""
        for item in items:
            if self.length(item.slot) == 0:
                self._starts[item.slot] = self._start(item.chunk_memories[0])
        return super().prefill(items, report_attention=report_attention)

    def _position(self, slot: int) -> int:
        return self._starts[slot]

    def _start(self, memories: Sequence[ExplicitMemory]) -> int:
        variation, lengths = self._variation, [memory.num_reference_tokens for memory in memories]
        first = 0 if variation.sink == "none" else self._written_prefix.num_tokens
        if variation.positions == "sequential":
            return first + sum(lengths)
        if variation.gap is None:
            return first + max(lengths, default=0)
        return first + variation.plan.max_reference_tokens + variation.gap

    def _of_layers(self, memory: ExplicitMemory) -> ExplicitMemory:
        layers = list(self.plan.memory_layers)
        return replace(
            memory,
            k_LKSD=memory.k_LKSD[layers],
            v_LKSD=memory.v_LKSD[layers],
            positions_LKS=memory.positions_LKS[layers],
        )

    def _with_prefix(self, memory: ExplicitMemory) -> ExplicitMemory:
        """The memory behind the prefix's own keys and values, which stay at their positions."""
        prefix_L2KPD = torch.stack([self._written_prefix.kv_2KPD[layer] for layer in self.plan.memory_layers])
        offsets_LKP = memory.positions_LKS.new_zeros(prefix_L2KPD.shape[0], *prefix_L2KPD.shape[2:4])
        return replace(
            memory,
            k_LKSD=torch.cat((prefix_L2KPD[:, 0], memory.k_LKSD), dim=2),
            v_LKSD=torch.cat((prefix_L2KPD[:, 1], memory.v_LKSD), dim=2),
            positions_LKS=torch.cat((offsets_LKP, memory.positions_LKS), dim=2),
            num_reference_tokens=memory.num_reference_tokens + self._written_prefix.num_tokens,
        )


def shifted(memory: ExplicitMemory, by: int, rope_theta: float) -> ExplicitMemory:
    """The memory as if its reference stood `by` positions further on: rotations add up, its keys are turned again."""
    if by == 0:
        return memory
    return replace(memory, k_LKSD=_turned(memory.k_LKSD, by, rope_theta))


def _turned(k_LKSD: Tensor, by: int, rope_theta: float) -> Tensor:
    head_dim = k_LKSD.shape[-1]
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angles = by * rope_theta**-exponents
    cos_D = torch.cat((angles.cos(), angles.cos())).to(k_LKSD.device)
    sin_D = torch.cat((-angles.sin(), angles.sin())).to(k_LKSD.device)
    turned_LKSD = k_LKSD.double() * cos_D + k_LKSD.double().roll(head_dim // 2, dims=-1) * sin_D
    return turned_LKSD.to(k_LKSD.dtype)


def _read_plan(variation: Variation, num_prefix_tokens: int) -> MemoryPlan:
    """The runner's plan: room for the prefix in memories that keep it."""
    plan = variation.plan
    if variation.sink != "in every memory":
        return plan
    tokens = min(plan.tokens_per_memory, plan.max_reference_tokens) + num_prefix_tokens
    return replace(plan, tokens_per_memory=tokens, max_reference_tokens=max(tokens, plan.max_reference_tokens))
