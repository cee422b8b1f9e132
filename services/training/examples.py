"""An item of text in a mode -> the context a step runs, as serving would build it. Knows no sets and no tensors."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from model.chat import ChatTemplate, Message
from model.context import ContextOpening, references_as_text
from model.plan import MemoryPlan
from model.tokenizer import Tokenizer
from model.training.batch import Batch, Context
from services.datasets.item import Item, Passage
from services.training.config import Losses

Mode = Literal["memory", "wrong", "rag", "none"]
MODES: tuple[Mode, ...] = ("memory", "wrong", "rag", "none")

_ANSWER_MARK = re.compile(r"^\s*(?:Answer:|A:)?\s*")


class TokenPassage(NamedTuple):
    """A reference in tokens."""

    tokens: tuple[int, ...]
    preceding: tuple[int, ...] = ()
    """As much of what stands directly before it as the plan puts in view."""


@dataclass(frozen=True)
class Example:
    """A context, and the references it reads by their place in `references`."""

    mode: Mode
    context: Context
    references: tuple[TokenPassage, ...]


@dataclass(frozen=True)
class _Asked:
    """An item's prompt and answer in one form."""

    prompt: str
    answer: str
    is_message: bool


class ExampleBuilder:
    """Builds examples for one model and plan."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        plan: MemoryPlan,
        losses: Losses | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        """`losses` None: no teacher, as for measuring. `template` None: nothing is asked as in a chat."""
        self._tokenizer, self._plan, self._losses, self._template = tokenizer, plan, losses, template
        self._opening = ContextOpening(tokenizer, plan)

    def build(self, item: Item, mode: Mode, in_chat: bool = False) -> Example:
        """The item's context in a mode. References longer than the plan allows are cut.

        `in_chat`: a question is a user's message and its answer the assistant's, where the item says what is asked.
        """
        asked = self._asked(item, in_chat=in_chat)
        answer = tuple(self._tokenizer.encode(asked.answer))
        none = self._plain((), asked, answer)
        if mode in ("rag", "none"):
            tokens = none if mode == "none" else self._plain(item.references, asked, answer)
            return Example(mode, self._context(mode, tokens, None, tokens, len(answer)), ())
        passages = item.passages if mode == "memory" else item.wrong_passages
        encoded = map(self._encoded, passages[: self._plan.memories_per_chunk])
        references = tuple(passage for passage in encoded if passage.tokens)
        tokens = (*self._opening.tokens(reads_memories=True), *self._prompt(asked, ()), *answer)
        chunks = -(-len(tokens) // self._plan.query_chunk_tokens)
        teacher = self._plain(self._taught(item), asked, answer) if mode == "memory" else none
        reads = (tuple(range(len(references))),) * chunks
        return Example(mode, self._context(mode, tokens, reads, teacher, len(answer)), references)

    def _encoded(self, passage: Passage) -> TokenPassage:
        tokens = tuple(self._tokenizer.encode(passage.text))[: self._plan.max_reference_tokens]
        # Not tokenised for nothing: a run does this for every reference it draws.
        seen = passage.preceding if self._plan.preceding_tokens else ""
        return TokenPassage(tokens, tuple(self._plan.in_view(self._tokenizer.encode(seen))))

    def _taught(self, item: Item) -> Sequence[str]:
        """What the teacher of a context with memories reads."""
        gold_alone = self._losses is not None and self._losses.teacher_reads == "gold" and item.gold
        return [item.references[place] for place in item.gold] if gold_alone else item.references

    def _asked(self, item: Item, *, in_chat: bool) -> _Asked:
        """What a prompt says after the question is how its answer begins."""
        if not in_chat or self._template is None or not item.question or item.question not in item.prompt:
            return _Asked(item.prompt, item.answer, is_message=False)
        after = item.prompt.partition(item.question)[2]
        answer = _ANSWER_MARK.sub("", after) + item.answer
        return _Asked(item.question, answer.strip(), is_message=True)

    def _plain(self, references: Sequence[str], asked: _Asked, answer: tuple[int, ...]) -> tuple[int, ...]:
        return (*self._opening.tokens(reads_memories=False), *self._prompt(asked, references), *answer)

    def _prompt(self, asked: _Asked, references: Sequence[str]) -> Sequence[int]:
        text = references_as_text(references) + asked.prompt
        if asked.is_message:
            assert self._template is not None
            return self._template.render([Message("user", text)]).tokens
        return self._tokenizer.encode(text)

    def _context(
        self,
        mode: Mode,
        tokens: tuple[int, ...],
        reads: tuple[tuple[int, ...], ...] | None,
        teacher: tuple[int, ...],
        num_scored: int,
    ) -> Context:
        losses = self._losses
        if losses is None:
            return Context(tokens, num_scored, reads)
        cross_entropy, distillation = (
            (losses.memory_cross_entropy, losses.memory_distillation)
            if mode == "memory"
            else (losses.other_cross_entropy, losses.other_distillation)
        )
        return Context(tokens, num_scored, reads, teacher if distillation else None, cross_entropy, distillation)


def batch_of(examples: Sequence[Example], tokens_per_memory: int) -> Batch:
    """The examples side by side; equal references once."""
    places: dict[TokenPassage, int] = {}
    contexts = []
    for example in examples:
        of_example = [places.setdefault(passage, len(places)) for passage in example.references]
        chunks = example.context.chunk_references
        if chunks is None:
            contexts.append(example.context)
        else:
            chosen = tuple(tuple(of_example[place] for place in chunk) for chunk in chunks)
            contexts.append(replace(example.context, chunk_references=chosen))
    references, preceding = ([one.tokens for one in places], [one.preceding for one in places])
    return Batch(tuple(references), tuple(contexts), tokens_per_memory, tuple(preceding))


def draw_mode(draw: random.Random, shares: dict[Mode, float]) -> Mode:
    """One mode by shares."""
    return draw.choices(list(shares), weights=list(shares.values()))[0]
