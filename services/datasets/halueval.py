"""HaluEval's QA part: HotpotQA questions with the passage that answers them, and a wrong answer made up by a model.

Questions whose passages share a sentence are in one split.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass

from services.datasets import lengths
from services.datasets.draw import Draw, split_of
from services.datasets.given import distractors, put_gold, take
from services.datasets.item import Item, Split
from services.datasets.sources import HALUEVAL_QA

_JOINED = re.compile(r"(?<=[a-z0-9)\"'”\]][.!?])(?=[\"“'(]?[A-Z])")
"""Between two sentences that the data joins without a space."""
_WORD = re.compile(r"\w{3,}")
_SHORTEST_SHARED = 25
"""Characters; shorter sentences ("He was born.") do not make two passages one text."""

_SHORTEST_ANSWER = 3
"""Characters; shorter ones stand in every distractor by chance."""


@dataclass(frozen=True)
class Question:
    """One row, its passage cut to the length of a reference that still holds the answer."""

    row: int
    question: str
    answer: str
    hallucinated: str
    passage: str
    split: Split


def load(split: Split, draw: Draw, items: int, references: int, *, choice: bool) -> list[Item]:
    """Drawn questions with drawn distractors of their split; with `choice`, the hallucinated answer to choose from."""
    pool = [question for question in questions() if question.split == split]
    texts = [question.passage for question in pool]
    return [
        _item(question, texts, draw.fork(question.row), references, choice=choice)
        for question in take(draw, pool, items)
    ]


def _item(asked: Question, texts: list[str], draw: Draw, references: int, *, choice: bool) -> Item:
    others = distractors(draw, texts, references - 1, unlike=(asked.passage,), without=(asked.answer,))
    given, gold = put_gold(draw, asked.passage, others)
    return Item(
        item_id=f"halueval-{asked.row}",
        kind="hotpotqa",
        prompt=f"Question: {asked.question}\nAnswer:",
        answer=f" {asked.answer}",
        references=given,
        gold=(gold,),
        wrong_references=distractors(draw, texts, references, unlike=given, without=(asked.answer,)),
        accepted=(asked.answer,),
        question=asked.question,
        choices=_choices(draw, asked) if choice else (),
    )


def _choices(draw: Draw, asked: Question) -> tuple[str, ...]:
    return tuple(draw.shuffled([f" {asked.answer}", f" {asked.hallucinated}"]))


@functools.cache
def questions() -> tuple[Question, ...]:
    """The questions whose answer stands in the passage (so not yes and no), in the file's order."""
    with HALUEVAL_QA.parsing():
        found = []
        for number, (row, passage, split) in enumerate(_rows()):
            answer = row["right_answer"].strip()
            cut = _shortened(passage, row["question"], answer)
            if cut is not None:
                hallucinated = row["hallucinated_answer"].strip()
                found.append(Question(number, row["question"].strip(), answer, hallucinated, cut, split))
        return tuple(found)


def passages(split: Split) -> list[str]:
    """The different passages of a split, whole, in the file's order."""
    return list(dict.fromkeys(" ".join(passage) for _, passage, of in _rows() if of == split))


@functools.cache
def _rows() -> tuple[tuple[dict[str, str], list[str], Split], ...]:
    """The rows of the file, the sentences of their passages, their splits."""
    with HALUEVAL_QA.parsing() as path, path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
        passages_ = [lengths.spans(_JOINED.sub(" ", row["knowledge"])) for row in rows]
    splits = map(split_of, _groups(passages_))
    return tuple(zip(rows, passages_, splits, strict=True))


def forget() -> None:
    """Read the file again at the next call."""
    questions.cache_clear()
    _rows.cache_clear()


def _shortened(passage: list[str], question: str, answer: str) -> str | None:
    """What a reference takes of the passage: a sentence with the answer, then those with most words of the question.

    None if no sentence holds the answer, or none that does is short enough.
    """
    word = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    asked = set(_WORD.findall(question.casefold()))
    shared = [len(asked & set(_WORD.findall(sentence.casefold()))) for sentence in passage]
    order = sorted(range(len(passage)), key=lambda place: (-shared[place], place))
    holders = [place for place in order if word.search(passage[place]) and lengths.fits(passage[place])]
    if len(answer) < _SHORTEST_ANSWER or not holders:
        return None
    return lengths.digest(passage, [holders[0], *(place for place in order if place != holders[0])])


def _groups(passages_: list[list[str]]) -> list[str]:
    """For each passage the name of its group: passages that share a sentence, directly or over others, have one."""
    parent = list(range(len(passages_)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[str, int] = {}
    for place, sentences in enumerate(passages_):
        for sentence in sentences:
            if len(sentence) >= _SHORTEST_SHARED:
                one, other = sorted((root(place), root(first.setdefault(sentence, place))))
                parent[other] = one
    return ["halueval " + " ".join(passages_[root(place)]) for place in range(len(passages_))]
