"""What a set gives: items to score, and the documents of a knowledge base. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = ("train", "held-out")


class DatasetError(Exception):
    """No such set, its package is missing or damaged, or too much was asked of it; the message names the remedy."""


class Passage(NamedTuple):
    """A reference of a set."""

    text: str
    preceding: str = ""
    """The text directly before it in its document, where there is one."""


@dataclass(frozen=True)
class Item:
    """One question, or one text to go on with."""

    item_id: str
    """Unique among the items of one call; for sets out of packages, the same question has it under every seed."""
    kind: str
    """Kind of fact, or source."""
    prompt: str
    """What stands before the answer; equal in every mode, without any reference."""
    answer: str
    """What is scored after the prompt, with its leading space."""
    references: tuple[str, ...]
    """Given references, each of at most 128 tokens, the gold ones at drawn places; () where retrieval decides."""
    gold: tuple[int, ...]
    """Indexes of the references that hold the answer (continuation: that stand directly before the text)."""
    wrong_references: tuple[str, ...]
    """The references of another item; as many."""
    accepted: tuple[str, ...]
    """A generated text that contains one of these, upper or lower case, counts as containing the answer."""
    question: str = ""
    """What is asked, without the form the prompt gives it; "" where that is all, or nothing is asked."""
    choices: tuple[str, ...] = ()
    """Alternatives to choose from by likelihood, each like `answer`, which is one of them; () for a free answer."""
    # Not shown: by what an item shows, earlier figures of the same items are found again (bench/ablation).
    preceding: tuple[str, ...] = field(default=(), repr=False)
    """What stands directly before each reference in its document, "" where nothing does; () if none has anything."""
    wrong_preceding: tuple[str, ...] = field(default=(), repr=False)
    """The same of the wrong references."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The references, each with what precedes it."""
        return _passages(self.references, self.preceding)

    @property
    def wrong_passages(self) -> tuple[Passage, ...]:
        """The same of the wrong references."""
        return _passages(self.wrong_references, self.wrong_preceding)


def _passages(texts: Sequence[str], preceding: Sequence[str]) -> tuple[Passage, ...]:
    pairs = zip(texts, preceding or [""] * len(texts), strict=True)
    return tuple(Passage(text, before) for text, before in pairs)


def parted(passages: Sequence[Passage]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Their texts and what precedes them, as an item holds them."""
    preceding = tuple(one.preceding for one in passages)
    return tuple(one.text for one in passages), preceding if any(preceding) else ()


@dataclass(frozen=True)
class BaseDocument:
    """One text of a knowledge base."""

    document_id: str
    title: str
    text: str


@dataclass(frozen=True)
class KnowledgeBase:
    """All texts that retrieval may find for a set."""

    name: str
    """Good as the name of a bank."""
    documents: Sequence[BaseDocument]
