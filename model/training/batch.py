"""What one training step runs: references to write and contexts to read them, as token ids; no text, no tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """One sequence with a loss on its last tokens. Raises ValueError on construction if it contradicts itself."""

    tokens: tuple[int, ...]
    """After the prefix: what opens a context (`model.context`), prompt, answer."""
    num_scored: int
    """So many last tokens have a loss; at least one token comes before them."""
    chunk_references: tuple[tuple[int, ...], ...] | None = None
    """For each query chunk, which references of the batch its memories are of; None: the context reads none."""
    teacher_tokens: tuple[int, ...] | None = None
    """Another context with the same last tokens, read by the teacher without memories; None: no teacher."""
    cross_entropy: float = 1.0
    """Weight of -log p(token)."""
    distillation: float = 0.0
    """Weight of KL(teacher || student)."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_scored < len(self.tokens):
            raise ValueError(
                f"{self.num_scored} scored tokens in a context of {len(self.tokens)}; score at least one, after another"
            )
        if self.distillation and self.teacher_tokens is None:
            raise ValueError(f"distillation has weight {self.distillation} and no teacher context; give one")
        if self.teacher_tokens is not None and self.teacher_tokens[-self.num_scored :] != self.targets:
            raise ValueError("the teacher's context ends with other tokens than the student's; score the same")

    @property
    def targets(self) -> tuple[int, ...]:
        """The scored tokens."""
        return self.tokens[-self.num_scored :]

    @property
    def reads_memories(self) -> bool:
        return self.chunk_references is not None


@dataclass(frozen=True)
class Batch:
    """References, each once, and the contexts that read them."""

    references: tuple[tuple[int, ...], ...]
    contexts: tuple[Context, ...]
    tokens_per_memory: int
    preceding: tuple[tuple[int, ...], ...] = ()
    """What stands directly before each reference in its document; () if nothing stands before any."""

    @property
    def num_scored(self) -> int:
        """Scored tokens of all contexts."""
        return sum(context.num_scored for context in self.contexts)

    @property
    def num_tokens(self) -> int:
        """Tokens the student runs, for the speed shown."""
        written = sum(map(len, (*self.references, *self.preceding)))
        return written + sum(len(context.tokens) for context in self.contexts)
