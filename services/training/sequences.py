"""Running text as the paper trains on it: long sequences, one reference for each query chunk, shared over a window.

A chunk reads its own reference and those of the four chunks before it (paper 3.6), so five as in serving. A reference
that gives away its sequence is left out (`model.training.leak`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from model.plan import MemoryPlan
from model.training.batch import Batch, Context
from model.training.leak import leaks
from services.training.nearest import NearestReferences

_CANDIDATES = 4
"""Nearest references looked at for a chunk before it goes without."""


@dataclass(frozen=True)
class Sequences:
    """A training set: sequences of equal length, and for each chunk of each its reference."""

    tokens: tuple[tuple[int, ...], ...]
    references: tuple[tuple[int, ...], ...]
    reference_of: tuple[tuple[int | None, ...], ...]
    """By sequence and chunk: which reference; None where all candidates leak."""


def cut_sequences(documents: Sequence[Sequence[int]], length: int, between: Sequence[int]) -> list[tuple[int, ...]]:
    """The documents one after the other, `between` them, cut into sequences; a rest at the end is dropped."""
    stream = [token for document in documents for token in (*document, *between)]
    return [tuple(stream[start : start + length]) for start in range(0, len(stream) - length + 1, length)]


def cut_references(documents: Sequence[Sequence[int]], length: int) -> list[tuple[int, ...]]:
    """Every document in pieces of at most `length` tokens."""
    pieces = ((document, start) for document in documents for start in range(0, len(document), length))
    return [tuple(document[start : start + length]) for document, start in pieces]


def find_references(
    sequences: Sequence[tuple[int, ...]], references: Sequence[tuple[int, ...]], plan: MemoryPlan, vocab_size: int
) -> Sequences:
    """For every chunk the nearest reference that does not leak into its sequence."""
    size = plan.query_chunk_tokens
    chunks = [tokens[start : start + size] for tokens in sequences for start in range(0, len(tokens), size)]
    found = iter(NearestReferences(references, vocab_size).search(chunks, _CANDIDATES))
    reference_of = []
    for tokens in sequences:
        of_sequence: list[int | None] = []
        for _ in range(0, len(tokens), size):
            safe = (place for place in next(found) if not leaks(tokens, references[place]))
            of_sequence.append(next(safe, None))
        reference_of.append(tuple(of_sequence))
    return Sequences(tuple(sequences), tuple(references), tuple(reference_of))


class SequenceSource:
    """Implements BatchSource: plain language modelling up to a step, with memories from there on."""

    def __init__(
        self,
        data: Sequences,
        plan: MemoryPlan,
        *,
        items: int,
        accumulation: int,
        seed: int,
        memories_from: int | None,
    ) -> None:
        """`items`: sequences of a step. `memories_from`: first step whose contexts read memories; None: none does."""
        self._data, self._plan, self._items, self._accumulation = data, plan, items, accumulation
        self._seed, self._memories_from = seed, memories_from

    @property
    def num_sequences(self) -> int:
        """Sequences there are."""
        return len(self._data.tokens)

    def pieces(self, step: int, rank: int, world: int) -> Sequence[Batch]:
        """See `services.training.ports.BatchSource`. The sequences of a step do not depend on `memories_from`."""
        draw = random.Random(f"memory3 sequences {self._seed} {step}")
        chosen = draw.choices(range(len(self._data.tokens)), k=self._items)
        size = self._items // (world * self._accumulation)
        reads = self._memories_from is not None and step >= self._memories_from
        starts = [(piece * world + rank) * size for piece in range(self._accumulation)]
        return [self.batch(chosen[start : start + size], reads_memories=reads) for start in starts]

    def batch(self, chosen: Sequence[int], *, reads_memories: bool) -> Batch:
        """These sequences side by side; equal references once."""
        places: dict[int, int] = {}
        contexts = []
        for number in chosen:
            tokens, chunk_references = self._data.tokens[number], None
            if reads_memories:
                of_sequence = self._data.reference_of[number]
                window = [
                    of_sequence[max(0, chunk + 1 - self._plan.memories_per_chunk) : chunk + 1]
                    for chunk in range(len(of_sequence))
                ]
                chunk_references = tuple(
                    tuple(dict.fromkeys(places.setdefault(one, len(places)) for one in seen if one is not None))
                    for seen in window
                )
            contexts.append(Context(tokens, len(tokens) - 1, chunk_references))
        references = tuple(self._data.references[place] for place in places)
        return Batch(references, tuple(contexts), self._plan.tokens_per_memory)
