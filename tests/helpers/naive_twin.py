"""Drives a runner and holds every logit it gives against the naive twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.memory.explicit_memory import ExplicitMemory
from model.naive import naive_logits
from model.runner import ModelRunner, PrefillItem

Memories = Sequence[ExplicitMemory]


@dataclass
class _Sequence:
    reads_memories: bool
    tokens: list[int] = field(default_factory=list)
    token_memories: list[Memories] = field(default_factory=list)
    given: dict[int, Tensor] = field(default_factory=dict)
    """Logits the runner gave, by the context token they follow."""
    current: Memories = ()


class Twin:
    """A runner whose sequences are noted down; `check` runs each of them naively."""

    def __init__(self, runner: ModelRunner, tolerance: float = 5e-4) -> None:
        self.runner = runner
        self._tolerance = tolerance
        self._sequences: dict[int, _Sequence] = {}
        self._finished: list[_Sequence] = []
        self.largest_error = 0.0

    def start(self, slot: int, *, reads_memories: bool = True) -> None:
        if slot in self._sequences:
            self._finished.append(self._sequences[slot])
        self.runner.reset(slot, reads_memories=reads_memories)
        self._sequences[slot] = _Sequence(reads_memories)

    def prefill(self, items: Mapping[int, tuple[Sequence[int], Sequence[Memories]]]) -> None:
        output = self.runner.prefill([PrefillItem(slot, tokens, chunks) for slot, (tokens, chunks) in items.items()])
        size = self.runner.plan.query_chunk_tokens
        for (slot, (tokens, chunks)), logits_V in zip(items.items(), output.logits_BV, strict=True):
            sequence = self._sequences[slot]
            first_chunk = len(sequence.tokens) // size
            for token in tokens:
                sequence.token_memories.append(chunks[len(sequence.tokens) // size - first_chunk])
                sequence.tokens.append(token)
            sequence.current = chunks[-1]
            sequence.given[len(sequence.tokens) - 1] = logits_V

    def swap(self, slot: int, memories: Memories) -> None:
        self.runner.set_memories(slot, memories)
        self._sequences[slot].current = memories

    def decode(self, tokens: Mapping[int, int]) -> None:
        output = self.runner.decode(list(tokens), list(tokens.values()))
        for (slot, token), logits_V in zip(tokens.items(), output.logits_BV, strict=True):
            sequence = self._sequences[slot]
            sequence.tokens.append(token)
            sequence.token_memories.append(sequence.current)
            sequence.given[len(sequence.tokens) - 1] = logits_V

    def check(self) -> None:
        """Every logit the runner gave, of finished sequences too, equals the naive twin's."""
        for sequence in [*self._finished, *self._sequences.values()]:
            if not sequence.given:
                continue
            expected_TV = naive_logits(
                self.runner.transformer,
                self.runner.plan,
                self.runner.prefix.tokens,
                sequence.tokens,
                sequence.token_memories,
                reads_memories=sequence.reads_memories,
            )
            for token, logits_V in sequence.given.items():
                self.largest_error = max(self.largest_error, float((logits_V - expected_TV[token]).abs().max()))
                torch.testing.assert_close(logits_V.double(), expected_TV[token], atol=self._tolerance, rtol=0)
