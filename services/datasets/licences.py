"""Yes/no questions on software licences, from choosealicense.com's tags; the licence texts are the knowledge base.

Licences of one family (the GNU ones, the BSD ones, ...) are in one split.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from services.datasets.draw import Draw, split_of
from services.datasets.given import first
from services.datasets.item import BaseDocument, Item, Split
from services.datasets.lengths import REFERENCE_TOKENS, chunks, estimated_tokens
from services.datasets.sources import LICENCES

_HELD_OUT_SHARE = 0.5
"""There are few families, and training has no great need of them."""

# A tag of a list of the file -> the question. "yes" where the licence has the tag.
_QUESTIONS = {
    "permissions/patent-use": "Does the {title} expressly grant patent rights from contributors?",
    "conditions/include-copyright": "Does the {title} require that its text and the copyright notice are included?",
    "conditions/document-changes": "Does the {title} require that changes are stated?",
    "conditions/disclose-source": "Does the {title} require that source code is made available?",
    "conditions/network-use-disclose": "Does the {title} require source code for users who interact over a network?",
    "conditions/same-license": "Does the {title} require that modifications are released under the same license?",
    "limitations/trademark-use": "Does the {title} state that it does not grant trademark rights?",
    "limitations/patent-use": "Does the {title} state that it does not grant patent rights?",
    "limitations/liability": "Does the {title} limit liability?",
    "limitations/warranty": "Does the {title} state that there is no warranty?",
}
# All licences have this tag, so it is asked both ways.
_ALWAYS = "permissions/commercial-use"
_ALLOWED = "Does the {title} allow commercial use?"
_FORBIDDEN = "Does the {title} forbid commercial use?"

_FAMILIES = {"agpl": "gpl", "lgpl": "gpl", "0bsd": "isc", "mit": "isc", "ecl": "apache", "osl": "afl", "gfdl": "gpl"}
_ENTRY = re.compile(r"^(?:(?P<key>[a-z-]+):[ \t]*(?P<value>.*)|[ \t]+-[ \t]+(?P<tag>\S+))$", re.MULTILINE)
_LINE_BREAK = re.compile(r"(?<!\n)[ \t]*\n[ \t]*(?!\s)")


@dataclass(frozen=True)
class Licence:
    """One licence as the package has it."""

    key: str
    title: str
    tags: frozenset[str]
    """ "conditions/same-license", ...; variants ("same-license--library") count as what they are variants of."""
    text: str
    split: Split


@functools.cache
def licences() -> tuple[Licence, ...]:
    """All licences of the package, by key."""
    with LICENCES.parsing() as folder:
        found = tuple(_parse(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt")))
        if not found:
            raise ValueError("no file there")
        return found


def _parse(key: str, content: str) -> Licence:
    _, head, text = content.split("---\n", 2)
    title, listing, tags = "", "", set()
    for entry in _ENTRY.finditer(head):
        if entry["tag"]:
            tags.add(f"{listing}/{entry['tag'].partition('--')[0]}")
        else:
            listing = entry["key"]
            title = entry["value"].strip("\"' ") if listing == "title" else title
    if not title or not text.strip():
        raise ValueError(f"{key}.txt has no title or no text")
    family = key.split("-", maxsplit=1)[0]
    split = split_of(f"licence {_FAMILIES.get(family, family)}", _HELD_OUT_SHARE)
    title = title.removeprefix("The ")  # the questions have an article of their own
    return Licence(key, title, frozenset(tags), text.strip(), split)


def load(split: Split, draw: Draw, items: int, references: int) -> list[Item]:
    """As many yes as no, for each tag too; retrieval finds the references."""
    del references
    mine = [licence for licence in licences() if licence.split == split]
    pairs = [pair for tag in _QUESTIONS for pair in _contrasts(draw.fork(tag), tag, mine)]
    pairs += list(_both_ways(draw.fork(_ALWAYS), mine))
    mixed = draw.shuffled(pairs)
    return list(first(list(chain.from_iterable(mixed)), items))


def _contrasts(draw: Draw, tag: str, among: list[Licence]) -> Iterable[tuple[Item, ...]]:
    """Pairs of licences of which one has the tag, in a drawn order."""
    having = draw.shuffled([licence for licence in among if tag in licence.tags])
    lacking = draw.shuffled([licence for licence in among if tag not in licence.tags])
    for yes, no in zip(having, lacking, strict=False):
        question = _QUESTIONS[tag]
        yield tuple(draw.shuffled([_item(yes, tag, question, yes=True), _item(no, tag, question, yes=False)]))


def _both_ways(draw: Draw, among: list[Licence]) -> Iterable[tuple[Item, ...]]:
    having = draw.shuffled([licence for licence in among if _ALWAYS in licence.tags])
    for allowed, forbidden in zip(having[::2], having[1::2], strict=False):
        pair = [_item(allowed, _ALWAYS, _ALLOWED, yes=True), _item(forbidden, _ALWAYS, _FORBIDDEN, yes=False)]
        yield tuple(draw.shuffled(pair))


def _item(licence: Licence, tag: str, question: str, *, yes: bool) -> Item:
    answer = "yes" if yes else "no"
    return Item(
        item_id=f"licences-{licence.key}-{tag}-{answer}",
        kind=tag,
        prompt=f"Question: {question.format(title=licence.title)}\nAnswer:",
        answer=f" {answer}",
        references=(),
        gold=(),
        wrong_references=(),
        accepted=(answer,),
        choices=(" yes", " no"),
    )


@functools.cache
def documents() -> tuple[BaseDocument, ...]:
    """The licence texts in passages that fit a reference, each with the licence's name before it."""
    return tuple(
        BaseDocument(f"{licence.key}/{number:03}", licence.title, f"{licence.title}: {passage}")
        for licence in licences()
        for number, passage in enumerate(_passages(licence))
    )


def _passages(licence: Licence) -> list[str]:
    room = REFERENCE_TOKENS - 8 - estimated_tokens(licence.title)
    return [" ".join(piece.split()) for piece in chunks(_LINE_BREAK.sub(" ", licence.text), room)]
