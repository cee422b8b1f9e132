"""What the engine needs from others: a model that runs tokens in slots, and text for tokens."""

from collections.abc import Sequence
from typing import Protocol

from model.config import ModelConfig
from model.memory.explicit_memory import ExplicitMemory
from model.plan import MemoryPlan
from model.runner import PrefillItem, StepOutput


class Runner(Protocol):
    """The part of `model.runner.ModelRunner` that the engine drives; its docstrings say what each call does."""

    @property
    def num_slots(self) -> int: ...
    @property
    def max_context_tokens(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def plan(self) -> MemoryPlan: ...

    def reset(self, slot: int, *, reads_memories: bool) -> None: ...
    def set_memories(self, slot: int, memories: Sequence[ExplicitMemory]) -> None: ...
    def prefill(self, items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput: ...
    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, report_attention: bool = False) -> StepOutput: ...


class Detokenizer(Protocol):
    """Turns the tokens of one sequence into text, one by one; holds back bytes of incomplete characters."""

    def push(self, token_id: int, /) -> str:
        """Text that this token completes; may be empty."""
        ...

    def flush(self) -> str:
        """What is still held back, incomplete characters replaced."""
        ...
