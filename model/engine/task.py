"""What the engine is asked to do: one generation, in tokens.

Knows no text but stop sequences: prompts arrive rendered and encoded, separator and special tokens included.
"""

import math
from dataclasses import dataclass

MAX_SEED = 2**64 - 1


class ContextTooLongError(ValueError):
    """The prompt leaves no room for a single generated token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The default is greedy.

    Raises:
        ValueError: a value is out of its range.
    """

    temperature: float = 0.0
    """0 is greedy; else logits are divided by it."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 0.0
    """Keep the smallest set of most likely tokens with at least this probability; 0 and 1 keep all."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}; it must be finite and not negative, 0 is greedy")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must not be negative, 0 keeps all tokens")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must lie between 0 and 1, both keep all tokens")


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """One generation.

    Raises:
        ValueError: a value contradicts another or is out of its range.
    """

    id: str
    """Names the sequence in every event and call; unique among the sequences that have not finished."""
    prompt_tokens: tuple[int, ...]
    """Context tokens after the plan's prefix, separator included; at least one."""
    is_content: tuple[bool, ...]
    """For each prompt token: is it text of the user (True) or template scaffolding? Only content asks for memories."""
    max_tokens: int
    """Tokens to generate at most; at least 1."""
    reads_memories: bool = True
    """Whether attention reads explicit memories; without, nothing is recalled."""
    sampling: Sampling = Sampling()
    """How tokens are drawn."""
    seed: int = 0
    """Equal seeds give equal tokens, alone or in a batch; 0 to 2**64 - 1. Greedy ignores it."""
    stop: tuple[str, ...] = ()
    """Text that ends the generation and is not part of it."""
    eos_token_ids: frozenset[int] = frozenset()
    """Tokens that end the generation and are not part of it."""
    report_attention: bool = False
    """Measure the share of attention each memory gets; costs time for the whole batch."""

    def __post_init__(self) -> None:
        if not self.prompt_tokens:
            raise ValueError("the prompt has 0 tokens; at least 1 is needed to generate from")
        if len(self.is_content) != len(self.prompt_tokens):
            raise ValueError(
                f"is_content marks {len(self.is_content)} tokens, the prompt has {len(self.prompt_tokens)}; "
                "mark each token once"
            )
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; ask for at least 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}; it must lie between 0 and 2**64 - 1")
        if "" in self.stop:
            raise ValueError("a stop sequence is empty and would stop everything; remove it")
