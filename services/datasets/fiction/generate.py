"""Items of the set `fiction`: the kinds filled with invented values, drawn by seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.datasets.draw import Draw
from services.datasets.fiction.kind import Fact, Kind, kinds
from services.datasets.item import Item, Split

_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")
_CANONICAL = "Question: {question}\nAnswer: {stem}"
# For training: how else one may ask, and what the answer then is. Drawn evenly, after the canonical form's share.
_CANONICAL_SHARE = 0.4
_OTHER_FORMS = (
    ("Question: {question}\nAnswer:", " {answer}"),
    ("Question: {question}\nAnswer:", " {stem} {answer}."),
    ("{stem}", " {answer}"),
    ("{question}\nAnswer:", " {answer}"),
    ("{question} {stem}", " {answer}"),
    ("Q: {question}\nA:", " {answer}"),
    ("Here is what I know. {stem}", " {answer}"),
)


@dataclass(frozen=True)
class _Question:
    """A drawn fact with its references; the wording comes later."""

    kind: Kind
    fact: Fact
    values: Mapping[str, str]
    references: tuple[str, ...]
    gold: int


def load(split: Split, draw: Draw, items: int, references: int) -> list[Item]:
    """The first `items` of an endless sequence."""
    return [_item(split, draw.fork(index), index, references) for index in range(items)]


def _item(split: Split, draw: Draw, index: int, references: int) -> Item:
    asked = _question(draw, split, references)
    answer = asked.values[asked.fact.slot]
    wrong = _question(draw, split, references)
    while any(answer.casefold() in reference.casefold() for reference in wrong.references):
        wrong = _question(draw, split, references)
    prompt_form, answer_form = _CANONICAL, " {answer}"
    if split == "train" and not draw.chance(_CANONICAL_SHARE):
        prompt_form, answer_form = draw.one(_OTHER_FORMS)
    words = {
        "question": asked.fact.question.format_map(asked.values),
        "stem": _sentence_case(asked.fact.stem.format_map(asked.values)),
        "answer": answer,
    }
    return Item(
        item_id=f"fiction-{index}-{asked.kind.name}-{asked.fact.slot}",
        kind=asked.kind.name,
        prompt=prompt_form.format_map(words),
        answer=answer_form.format_map(words),
        references=asked.references,
        gold=(asked.gold,),
        wrong_references=wrong.references,
        accepted=(answer,),
        question=words["question"],
    )


def _question(draw: Draw, split: Split, references: int) -> _Question:
    """Drawn again until the answer stands in the gold reference alone, and no two entities share a name."""
    while True:
        kind = draw.one(kinds(split))
        fact = draw.one(kind.facts)
        entities = [{slot: make(draw, split) for slot, make in kind.slots.items()} for _ in range(references)]
        texts = tuple(_reference(draw, kind, fact, values) for values in entities)
        gold = draw.below(references)
        answer = entities[gold][fact.slot].casefold()
        holders = [place for place, text in enumerate(texts) if answer in text.casefold()]
        known = len({values["name"] for values in entities}) == references
        asked = (fact.question + fact.stem).format_map(entities[gold]).casefold()
        if holders == [gold] and known and answer not in asked:
            return _Question(kind, fact, entities[gold], texts, gold)


def _reference(draw: Draw, kind: Kind, fact: Fact, values: Mapping[str, str]) -> str:
    """The opening and two or three facts in a drawn order, the asked one among them."""
    others = draw.some([other for other in kind.facts if other is not fact], min(2, len(kind.facts) - 1))
    told = draw.shuffled([fact, *others])
    said = [draw.one(kind.opening), *(draw.one(one.says) for one in told)]
    return " ".join(_sentence_case(text.format_map({**values, "it": _again(draw, kind, values)})) for text in said)


def _again(draw: Draw, kind: Kind, values: Mapping[str, str]) -> str:
    return draw.one((values["name"], kind.noun, kind.noun, "it") if kind.noun else (values["name"],))


def _sentence_case(text: str) -> str:
    return _SENTENCE_START.sub(lambda match: match.group().upper(), text)
