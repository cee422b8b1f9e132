"""What an evaluation needs from others: a model that scores and generates, and a source of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.datasets.item import Passage

References = Sequence[Passage]
Recall = Callable[[int, Sequence[str]], Sequence[References]]
"""(index of the context, texts of queries) -> the references for each query."""


@dataclass(frozen=True)
class Context:
    """What stands before an answer, in tokens."""

    tokens: tuple[int, ...]
    is_content: tuple[bool, ...]
    """Which tokens may ask for memories: those of the prompt, not the opening, not references."""
    reads_memories: bool


@dataclass(frozen=True)
class ScoredAnswer:
    """How likely an answer is."""

    nll: tuple[float, ...]
    """Negative log-likelihood of each token; nats."""
    is_greedy: bool
    """Whether every token is the most likely one: greedy generation begins with exactly this answer."""


class Model(Protocol):
    """A checkpoint under a memory plan and a codec."""

    def cut(self, reference: str) -> str:
        """The reference, or as much of its beginning as the plan's longest reference holds."""

    def context(self, prompt: str, references: Sequence[str], *, reads_memories: bool) -> Context:
        """The context as serving builds it; `references` stand in it as text."""

    def chat(self, question: str, references: Sequence[str], *, reads_memories: bool) -> Context | None:
        """The context of a chat whose user asks the question, as serving builds it; None if the model knows no chat."""

    def queries(self, context: Context, answer: str) -> list[str | None]:
        """The text each span of context and answer recalls with; None for a span that reads on."""

    def score(self, contexts: Sequence[tuple[Context, str, Sequence[References] | None]]) -> list[ScoredAnswer]:
        """The likelihood of (context, answer, references that each span reads as memories; None: reads none)."""

    def generate(self, contexts: Sequence[Context], recall: Recall, max_tokens: int) -> list[str]:
        """The first line with text in it that the engine generates greedily, without the white space around it.

        `recall` is asked by contexts that read memories.
        """


class ReferenceSource(Protocol):
    """Retrieval over a knowledge base."""

    def find(self, queries: Sequence[str]) -> list[References]:
        """The references nearest to each query, best first."""
