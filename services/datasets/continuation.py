"""Going on with a news article in its middle: a chunk of it, given the chunks directly before.

The articles are of HaluEval's summarisation part. Whose they are is not clear, so they are measured with and nothing
else: never trained on, never passed on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.datasets import lengths
from services.datasets.draw import Draw, split_of
from services.datasets.item import DatasetError, Item, Split
from services.datasets.sources import HALUEVAL_SUMMARISATION

_OPENING_TOKENS = 16
"""Estimated tokens of the target that are the prompt."""
_SHORTEST_TARGET = 84
"""Estimated tokens of prompt and answer; so an answer has some 64 or more."""


@dataclass(frozen=True)
class Article:
    """One article."""

    row: int
    """In the file; of several that are equal, the first."""
    text: str
    """Its white space made single spaces."""


@dataclass(frozen=True)
class _Place:
    """Where an article is to be gone on with."""

    number: int
    """Of the target among the article's chunks."""
    before: tuple[str, ...]
    preceding: tuple[str, ...]
    """What stands directly before each of these."""
    target: str


def load(split: Split, draw: Draw, items: int, references: int) -> list[Item]:
    """Drawn articles that are long enough, each with a drawn place in it."""
    pool = [article for article, of in articles() if of == split]
    found: list[Item] = []
    for article in draw.shuffled(pool):
        if len(found) == items:
            break
        own = draw.fork(article.row)
        if (place := _place(article, own, references)) is not None:
            found.append(_item(article, place, _other(article, pool, own, references)))
    if len(found) < items:
        raise DatasetError(
            f"{items} items asked of a split that has {len(found)} with {references} references; "
            f"ask for at most {len(found)}"
        )
    return found


@functools.cache
def articles() -> tuple[tuple[Article, Split], ...]:
    """The different articles in the file's order, with their splits."""
    with HALUEVAL_SUMMARISATION.parsing() as path, path.open(encoding="utf-8") as file:
        rows: dict[str, int] = {}
        for row, line in enumerate(file):
            rows.setdefault(" ".join(json.loads(line)["document"].split()), row)
    return tuple((Article(row, text), split_of(f"news {text}")) for text, row in rows.items())


def _place(article: Article, draw: Draw, references: int) -> _Place | None:
    """A drawn chunk that is long enough and has as many before it; None if there is none."""
    chunks = lengths.chunks(article.text)
    possible = [
        number
        for number in range(references, len(chunks))
        if lengths.estimated_tokens(chunks[number]) >= _SHORTEST_TARGET
    ]
    if not possible:
        return None
    number = draw.one(possible)
    first = number - references
    preceding = ["", *chunks][first : first + references]
    return _Place(number, tuple(chunks[first:number]), tuple(preceding), chunks[number])


def _other(article: Article, pool: Sequence[Article], draw: Draw, references: int) -> _Place:
    """A place of another article."""
    for other in draw.shuffled(pool):
        if other is not article and (place := _place(other, draw, references)) is not None:
            return place
    raise DatasetError(f"only one article has {references} chunks before a place; ask for fewer references")


def _item(article: Article, place: _Place, wrong: _Place) -> Item:
    prompt, answer = _halves(place.target)
    return Item(
        item_id=f"continuation-{article.row}-{place.number}",
        kind="news",
        prompt=prompt,
        answer=answer,
        references=place.before,
        gold=tuple(range(len(place.before))),
        wrong_references=wrong.before,
        accepted=(),
        preceding=place.preceding,
        wrong_preceding=wrong.preceding,
    )


def _halves(chunk: str) -> tuple[str, str]:
    """The chunk cut before a space: the opening, and the rest with the space."""
    words = chunk.split(" ")
    count = 1
    while lengths.estimated_tokens(" ".join(words[: count + 1])) <= _OPENING_TOKENS:
        count += 1
    return " ".join(words[:count]), " " + " ".join(words[count:])
