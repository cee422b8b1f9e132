"""Which document of a knowledge base answers a question, told by the words they share. For choosing questions only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.datasets.item import BaseDocument
from services.datasets.word_index import WordIndex, words_of

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")
_SHORTEST_ANSWER = 4
"""Characters; shorter ones stand in many texts by chance."""
_SHARED_SHARE = 0.5
"""Of the question's words, weighed by how rare they are, the document must have this share."""
_COMMON_WORDS = (
    "about after also been before between both called could during each first from have into known last like made many "
    "more most much name named only other over same second some such than that their them then there these they this "
    "those time used very were what when where which while whose will with would year years world city country"
)
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True)
class Home:
    """Where the answer stands."""

    document_id: str
    answer: str
    """As the document has it."""
    accepted: tuple[str, ...]
    """All answers that say something, this one first."""


class AnswerFinder:
    """Finds homes for questions among some documents."""

    def __init__(self, documents: Sequence[BaseDocument]) -> None:
        self._documents = documents
        self._index = WordIndex([f"{document.title} {document.text}" for document in documents])
        self._texts = [f" {_plain(document.text)} " for document in documents]

    def home(self, question: str, answers: Iterable[str]) -> Home | None:
        """The document with an answer in its text that shares most with the question; None if none shares enough."""
        # What the question says itself is no answer to look for.
        said = f" {_plain(question)} "
        telling = [one for one in dict.fromkeys(answers) if _tells(one) and f" {_plain(one)} " not in said]
        asked = sorted(word for word in words_of(question) if word not in _COMMON and len(word) > 2)
        weights = {word: self._index.weight(word) for word in asked}
        having = {answer: self._having(answer) for answer in telling}
        scores = {
            place: sum(weight for word, weight in weights.items() if word in self._index.words[place])
            for place in sorted(set().union(*having.values()))
        }
        if not scores:
            return None
        best = max(scores, key=lambda place: (scores[place], -place))
        if scores[best] < _SHARED_SHARE * sum(weights.values()):
            return None
        # Of the answers it has, the one that most documents have is the usual name.
        answer = max(
            (one for one in telling if best in having[one]), key=lambda one: (len(having[one]), -len(one), one)
        )
        document = self._documents[best]
        written = _as_written(document.text, answer)
        return Home(document.document_id, written, tuple(dict.fromkeys([written, *telling])))

    def _having(self, answer: str) -> frozenset[int]:
        """Places of the documents whose text has the answer's words in a row."""
        plain = _plain(answer)
        sets = [self._index.holders.get(word) for word in plain.split()]
        known = [holders for holders in sets if holders is not None]
        if not known or len(known) < len(sets):
            return frozenset()
        common = set.intersection(*known)
        return frozenset(place for place in common if f" {plain} " in self._texts[place])


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _tells(answer: str) -> bool:
    """Whether an answer is a name or term: no number, no common word, not too short."""
    return len(answer) >= _SHORTEST_ANSWER and answer.casefold() not in _COMMON and _DIGIT.search(answer) is None


def _as_written(text: str, answer: str) -> str:
    """The answer in the text's own upper and lower case and marks."""
    pattern = r"\W+".join(map(re.escape, _WORD.findall(answer)))
    found = re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)
    return found.group() if found else answer
