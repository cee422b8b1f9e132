"""How a context opens and how references stand in it as text: one place for serving and for evaluation.

Knows no engine, no requests and no chat.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.plan import MemoryPlan
from model.tokenizer import Tokenizer


def references_as_text(references: Sequence[str]) -> str:
    """What stands before a prompt whose references are read as text: one a line, then an empty line; "" for none."""
    return "\n".join(references) + "\n\n" if references else ""


class ContextOpening:
    """The tokens before a prompt. Immutable."""

    def __init__(self, tokenizer: Tokenizer, plan: MemoryPlan) -> None:
        self._bos = tuple(tokenizer.encode_special(plan.context_bos))
        self._separator = tuple(tokenizer.encode(plan.separator))

    def tokens(self, *, reads_memories: bool) -> tuple[int, ...]:
        """The plan's context BOS; then its separator, but only in a context that reads memories: it stands between
        their text and the prompt's."""
        return self._bos + (self._separator if reads_memories else ())
