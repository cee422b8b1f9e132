"""Which sequences run in this step, prompt or next token, and in which slots. Knows no tensors and no memories.

Order is first come, first served among the sequences that can run: one that awaits its prompt's memories does not hold
up those behind it, and takes its place again once they have come. Prompts run in pieces of at most a budget, and while
somebody decodes, every other step is a decode step: a long prompt delays a token by one piece, never by the whole.
"""

import heapq
from dataclasses import dataclass

from model.engine.sequence import Sequence, SequenceState


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """Run these many next prompt tokens of each sequence."""

    pieces: tuple[tuple[Sequence, int], ...]


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Run one token of each sequence, by ascending slot."""

    sequences: tuple[Sequence, ...]


class Scheduler:
    """Queue, slots and turns."""

    def __init__(self, num_slots: int, chunk_tokens: int, prefill_tokens_per_step: int) -> None:
        """`prefill_tokens_per_step` is a multiple of `chunk_tokens`, so that pieces end on the grid of query chunks."""
        self._chunk_tokens = chunk_tokens
        self._prefill_tokens_per_step = prefill_tokens_per_step
        self._free_slots = list(range(num_slots))  # a heap: the lowest first keeps the active part of the cache short
        self._prefilled_last = False
        # Ordered by arrival and by admission.
        self.waiting: dict[str, Sequence] = {}
        self.admitted: dict[str, Sequence] = {}

    @property
    def num_free_slots(self) -> int:
        """Slots that nobody holds."""
        return len(self._free_slots)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        self.waiting[sequence.task.id] = sequence

    def get(self, sequence_id: str) -> Sequence | None:
        """A sequence that has not been removed."""
        return self.waiting.get(sequence_id) or self.admitted.get(sequence_id)

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence; its slot is free at once."""
        self.waiting.pop(sequence.task.id, None)
        self.admitted.pop(sequence.task.id, None)
        if sequence.slot is not None:
            heapq.heappush(self._free_slots, sequence.slot)
            sequence.slot = None

    def admit(self) -> list[Sequence]:
        """Gives free slots to the sequences that can run, in the order they came; those."""
        ready = [sequence for sequence in self.waiting.values() if not sequence.is_awaiting_prompt_memories]
        admitted = ready[: len(self._free_slots)]
        for sequence in admitted:
            del self.waiting[sequence.task.id]
            self.admitted[sequence.task.id] = sequence
            sequence.slot = heapq.heappop(self._free_slots)
            sequence.state = SequenceState.RUNNING
        return admitted

    @property
    def can_step(self) -> bool:
        """Whether anything could run now."""
        return any(sequence.state is SequenceState.RUNNING for sequence in self.admitted.values()) or (
            bool(self._free_slots) and any(not waiting.is_awaiting_prompt_memories for waiting in self.waiting.values())
        )

    def next_step(self) -> PrefillStep | DecodeStep | None:
        """What to run now; None if nothing can."""
        running = [sequence for sequence in self.admitted.values() if sequence.state is SequenceState.RUNNING]
        prefilling = [sequence for sequence in running if sequence.num_unrun_prompt_tokens]
        decoding = [sequence for sequence in running if not sequence.num_unrun_prompt_tokens]
        if prefilling and not (decoding and self._prefilled_last):
            self._prefilled_last = True
            return PrefillStep(self._pieces(prefilling))
        self._prefilled_last = False
        return DecodeStep(tuple(sorted(decoding, key=_slot))) if decoding else None

    def _pieces(self, prefilling: list[Sequence]) -> tuple[tuple[Sequence, int], ...]:
        """Prompt pieces within the budget; each ends on the grid or with its prompt. The first is never empty."""
        pieces: list[tuple[Sequence, int]] = []
        budget = self._prefill_tokens_per_step
        for sequence in prefilling:
            num_left = sequence.num_unrun_prompt_tokens
            num_tokens = num_left if num_left <= budget else budget - budget % self._chunk_tokens
            if num_tokens == 0:
                break
            pieces.append((sequence, num_tokens))
            budget -= num_tokens
        return tuple(pieces)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None, f"sequence {sequence.task.id} runs without a slot"
    return sequence.slot
