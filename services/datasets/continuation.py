"""Going on with a text: the last part of a Wikipedia lead, given its earlier parts and leads of articles it names."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from services.datasets import lengths
from services.datasets.draw import Draw
from services.datasets.given import distractors, take
from services.datasets.item import BaseDocument, Item, Split
from services.datasets.wikipedia import leads, split_of_lead

_LONGEST_TARGET = 160
"""Tokens: two query chunks and a bit."""
_SHORTEST_TARGET = 90
_SHORTEST_BEFORE = 70
_SHORTEST_REFERENCE = 20
"""Estimated tokens; less is no text to go on with, or tells nothing about it."""
_OPENING_TOKENS = 38
"""Estimated tokens of the part that is the prompt; some 32 real ones."""
_LONGEST_TITLE = 5
"""Words."""
_WORD = re.compile(r"\w[\w'’-]*")


@dataclass(frozen=True)
class _Text:
    """An article in chunks: what is to be gone on with, and what stands before it."""

    document: BaseDocument
    before: list[str]
    target: str


def load(split: Split, draw: Draw, items: int, references: int) -> list[Item]:
    """Drawn articles that are long enough; the references come from articles of the same split."""
    pool = _long(split)
    return [_item(text, split, draw.fork(text.document.document_id), references) for text in take(draw, pool, items)]


@functools.cache
def _first_chunks(split: Split) -> dict[str, str]:
    """The first chunk of each article of the split, by the article's title."""
    mine = (document for document in leads() if split_of_lead(document) == split)
    return {document.title: chunks[0] for document in mine if (chunks := _telling(document.text))}


@functools.cache
def _long(split: Split) -> tuple[_Text, ...]:
    """The articles that have enough before a target."""
    mine = (document for document in leads() if split_of_lead(document) == split)
    return tuple(text for document in mine if (text := _cut(document)) is not None)


def _cut(document: BaseDocument) -> _Text | None:
    """The target is as many of the last sentences as it may have, without the first; None if a part is too short."""
    sentences = lengths.spans(document.text)
    start = len(sentences)
    while start > 1 and lengths.fits(" ".join(sentences[start - 1 :]), _LONGEST_TARGET):
        start -= 1
    before, target = _telling(" ".join(sentences[:start])), " ".join(sentences[start:])
    if lengths.estimated_tokens(target) < _SHORTEST_TARGET or not before:
        return None
    long_enough = sum(map(lengths.estimated_tokens, before)) >= _SHORTEST_BEFORE
    return _Text(document, before, target) if long_enough else None


def _telling(text: str) -> list[str]:
    """The chunks of a text, scraps left out."""
    return [chunk for chunk in lengths.chunks(text) if lengths.estimated_tokens(chunk) >= _SHORTEST_REFERENCE]


def _item(text: _Text, split: Split, draw: Draw, references: int) -> Item:
    prompt, answer = _halves(text.target)
    given, gold = _neighbours(text, split, draw, references)
    other = draw.one([other for other in _long(split) if other is not text])
    return Item(
        item_id=f"continuation-{text.document.document_id}",
        kind="wikipedia-lead",
        prompt=prompt,
        answer=answer,
        references=given,
        gold=gold,
        wrong_references=_neighbours(other, split, draw, references)[0],
        accepted=(),
    )


def _halves(chunk: str) -> tuple[str, str]:
    """The chunk cut before a space: some 32 tokens, and the rest with the space."""
    words = chunk.split(" ")
    count = 1
    while count < len(words) - 1 and lengths.estimated_tokens(" ".join(words[: count + 1])) <= _OPENING_TOKENS:
        count += 1
    return " ".join(words[:count]), " " + " ".join(words[count:])


def _neighbours(text: _Text, split: Split, draw: Draw, references: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The chunks before the target, then first chunks of articles whose titles stand in them, then drawn ones."""
    known = _first_chunks(split)
    own = text.before[-references:]
    named = [known[title] for title in _titles_in(" ".join(text.before), known) if title != text.document.title]
    found = list(dict.fromkeys([*own, *named]))[:references]
    filling = list(known.values())
    found += distractors(draw, filling, references - len(found), unlike=(known[text.document.title], *found))
    order = draw.shuffled(range(references))
    gold = tuple(place for place, number in enumerate(order) if number < len(own))
    return tuple(found[number] for number in order), gold


def _titles_in(text: str, known: Collection[str]) -> list[str]:
    """Those of the known titles that stand in the text, in its order."""
    words = list(_WORD.finditer(text))
    found: dict[str, None] = {}
    for place, word in enumerate(words):
        for last in words[place : place + _LONGEST_TITLE]:
            title = text[word.start() : last.end()]
            if title in known:
                found[title] = None
    return list(found)
