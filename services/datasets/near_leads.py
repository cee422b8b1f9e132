"""TriviaQA questions with the lead that answers among the leads most like it: are memories of similar texts told apart?

The questions of `trivia`; here the references are given. All of an item's texts are of one split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from services.datasets import lengths
from services.datasets.draw import Draw
from services.datasets.given import put_gold, take
from services.datasets.item import DatasetError, Item, Passage, Split, parted
from services.datasets.trivia import Question, questions
from services.datasets.wikipedia import leads, split_of_lead
from services.datasets.word_index import WordIndex

_LOOKED_AT = 100
"""Of the leads nearest to a home, so many are looked at for some without the answer."""


class _Leads:
    """The leads of a split, cut into references, and which of them are alike."""

    def __init__(self, split: Split) -> None:
        documents = [lead for lead in leads() if split_of_lead(lead) == split]
        self._chunks = [lengths.chunks(lead.text) for lead in documents]
        self._places = {lead.document_id: place for place, lead in enumerate(documents)}
        self._index = WordIndex([f"{lead.title} {lead.text}" for lead in documents])

    def gold(self, question: Question) -> Passage | None:
        """The first chunk of the home that holds the answer; None if none does, or the home is of the other split."""
        place = self._places.get(question.home)
        chunks = [] if place is None else self._chunks[place]
        passages = map(Passage, chunks, ["", *chunks])
        return next((passage for passage in passages if question.answer in passage.text), None)

    def near(self, question: Question) -> Iterator[str]:
        """First chunks of the leads nearest to the home, none with an answer in it."""
        answers = [answer.casefold() for answer in question.accepted]
        for place in self._index.nearest(self._places[question.home], _LOOKED_AT):
            if (chunks := self._chunks[place]) and not any(answer in chunks[0].casefold() for answer in answers):
                yield chunks[0]


def load(split: Split, draw: Draw, items: int, references: int, cache_dir: Path | None) -> list[Item]:
    """Drawn questions, each with a chunk of its home that holds the answer and the first chunks of the nearest leads.

    Wrong references are those of the next nearest.
    """
    texts = _Leads(split)
    pool = [(question, gold) for question in questions(cache_dir) if (gold := texts.gold(question)) is not None]
    return [
        _item(question, gold, texts, draw.fork(question.number), references)
        for question, gold in take(draw, pool, items)
    ]


def _item(question: Question, gold: Passage, texts: _Leads, draw: Draw, references: int) -> Item:
    wanted = 2 * references - 1
    near = list(itertools.islice(texts.near(question), wanted))
    if len(near) < wanted:
        raise DatasetError(
            f"{references} references asked; question {question.number} has {len(near)} near leads, and {wanted} are "
            "needed: ask for fewer"
        )
    given, place = put_gold(draw, gold.text, near[: references - 1])
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
        preceding=parted([Passage(text, gold.preceding if text == gold.text else "") for text in given])[1],
    )
