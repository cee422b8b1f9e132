"""TriviaQA questions with the lead that answers among the leads most like it: are memories of similar texts told apart?

The questions of `trivia`; here the references are given. All of an item's texts are of one split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.datasets import lengths
from services.datasets.draw import Draw
from services.datasets.given import put_gold, take
from services.datasets.item import DatasetError, Item, Split
from services.datasets.trivia import Question, questions
from services.datasets.wikipedia import leads, split_of_lead
from services.datasets.word_index import WordIndex

_LOOKED_AT = 100
"""Of the leads nearest to a home, so many are looked at for some without the answer."""


@dataclass(frozen=True)
class _Lead:
    """A lead cut into references."""

    document_id: str
    chunks: tuple[str, ...]


def load(split: Split, draw: Draw, items: int, references: int, cache_dir: Path | None) -> list[Item]:
    """Drawn questions, each with a chunk of its home that holds the answer and the first chunks of the nearest leads.

    Wrong references are those of the next nearest.
    """
    documents = [lead for lead in leads() if split_of_lead(lead) == split]
    texts = [_Lead(lead.document_id, tuple(lengths.chunks(lead.text))) for lead in documents]
    places = {lead.document_id: place for place, lead in enumerate(texts)}
    index = WordIndex([f"{lead.title} {lead.text}" for lead in documents])
    pool = [question for question in questions(cache_dir) if _gold(question, texts, places) is not None]
    return [
        _item(question, texts, places, index, draw.fork(question.number), references)
        for question in take(draw, pool, items)
    ]


def _gold(question: Question, texts: Sequence[_Lead], places: dict[str, int]) -> str | None:
    """The first chunk of the home that holds the answer; None if it is of the other split, or no chunk holds it."""
    if question.home not in places:
        return None
    return next((chunk for chunk in texts[places[question.home]].chunks if question.answer in chunk), None)


def _item(
    question: Question,
    texts: Sequence[_Lead],
    places: dict[str, int],
    index: WordIndex,
    draw: Draw,
    references: int,
) -> Item:
    gold = _gold(question, texts, places)
    assert gold is not None
    near = [text for text, _ in zip(_near(question, texts, places, index), range(2 * references - 1), strict=False)]
    if len(near) < 2 * references - 1:
        raise DatasetError(
            f"{references} references asked; question {question.number} has {len(near)} near leads, and "
            f"{2 * references - 1} are needed: ask for fewer"
        )
    given, place = put_gold(draw, gold, near[: references - 1])
    return Item(
        item_id=f"wikipedia-near-{question.number}",
        kind="triviaqa",
        prompt=f"Question: {question.question}\nAnswer:",
        answer=f" {question.answer}",
        references=given,
        gold=(place,),
        wrong_references=tuple(near[references - 1 :]),
        accepted=question.accepted,
        question=question.question,
    )


def _near(question: Question, texts: Sequence[_Lead], places: dict[str, int], index: WordIndex) -> Iterator[str]:
    """First chunks of the leads nearest to the home, none with an answer in it."""
    answers = [answer.casefold() for answer in question.accepted]
    for place in index.nearest(places[question.home], _LOOKED_AT):
        if (chunks := texts[place].chunks) and not any(answer in chunks[0].casefold() for answer in answers):
            yield chunks[0]
