"""TriviaQA over the Wikipedia leads: which questions are kept, with which answer, and the cache."""

from __future__ import annotations

import json
import zipfile

import pytest

from services.datasets import trivia, wikipedia
from services.datasets.answers import AnswerFinder
from services.datasets.item import SPLITS, BaseDocument, DatasetError
from services.datasets.registry import knowledge_base, load
from services.datasets.sources import Source

DOCUMENTS = (
    BaseDocument("A", "Paris", "Paris is the capital of France. It lies on the Seine."),
    BaseDocument("B", "Lyon", "Lyon is a town of France, south of Paris, on the Rhone."),
    BaseDocument("C", "Rome", "Rome, on the Tiber, is the capital of Italy; the Vatican is a state in it."),
)


@pytest.fixture(autouse=True)
def _nothing_known():
    trivia.forget()
    yield
    trivia.forget()


class TestAnswerFinder:
    finder = AnswerFinder(DOCUMENTS)

    def test_the_home_shares_most_with_the_question(self):
        home = self.finder.home("Which capital lies on the Seine in France?", ["Paris", "PARIS", "City of Light"])
        assert home is not None
        assert (home.document_id, home.answer) == ("A", "Paris")
        assert home.accepted == ("Paris", "PARIS", "City of Light")

    def test_of_several_answers_the_usual_one(self):
        home = self.finder.home("South of which town is Lyon on the Rhone?", ["of Paris", "paris"])
        assert home is not None
        assert home.answer == "Paris"
        assert home.accepted == ("Paris", "of Paris", "paris")

    @pytest.mark.parametrize(
        ("question", "answers"),
        [
            ("Which capital lies on the Seine in France?", ["Pari", "Rom", "ris is the"]),  # parts of words
            ("Who painted the ceiling with nine scenes?", ["Paris"]),  # nothing shared
            ("Is Paris the capital of France?", ["Paris"]),  # the question says it
            ("Which town of France is south of Paris?", ["which", "1789", "on"]),  # common, number, short
        ],
    )
    def test_no_home(self, question, answers):
        assert self.finder.home(question, answers) is None


def jar(path, rows):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("topics-and-qrels/topics.dpr.trivia.dev.txt", "".join(rows[:1]))
        file.writestr("topics-and-qrels/topics.dpr.trivia.test.txt", "".join(rows[1:]))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two questions over three documents; returns the jar."""
    (tmp_path / "fake_trivia").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trivia, "TRIVIA", Source("fake_trivia", "fake==1", "t.jar"))
    monkeypatch.setattr(trivia, "leads", lambda: DOCUMENTS)
    rows = [
        '"Which ""capital"" lies on the Seine in France?"\t[\'Paris\', \'PARIS\']\n',
        'Which capital is on the Tiber in Italy?\t"[\'Roma\', ""L\'Urbe"", \'Rome\']"\n',
    ]
    jar(tmp_path / "fake_trivia" / "t.jar", rows)
    return tmp_path / "fake_trivia" / "t.jar"


def test_rows_are_read_with_their_quotes(small):
    first, second = trivia.questions(None)
    assert (first.number, first.question) == (0, 'Which "capital" lies on the Seine in France?')
    assert (second.number, second.answer, second.accepted) == (1, "Rome", ("Rome", "Roma", "L'Urbe"))


def test_the_cache_is_made_once_and_read_after_that(small, tmp_path):
    made = trivia.questions(tmp_path / "cache")
    [file] = (tmp_path / "cache").iterdir()
    small.unlink()
    trivia.forget()
    assert trivia.questions(tmp_path / "cache") == made
    file.write_text("half a fi")
    trivia.forget()
    with pytest.raises(DatasetError, match="not in the package"):
        trivia.questions(tmp_path / "cache")


@pytest.mark.parametrize("damage", ["no jar", "a question without answers\n", "A?\t'word'\n", "A?\t[unclosed\n"])
def test_a_damaged_jar(small, damage):
    if damage == "no jar":
        small.write_bytes(b"no jar")
    else:
        jar(small, [damage])
    with pytest.raises(DatasetError, match=r"t\.jar of the package cannot be read .* reinstall fake==1"):
        load("wikipedia", split="train", items=1, seed=0)


@pytest.mark.slow  # looks for twenty thousand questions' answers in ten thousand texts
def test_the_real_questions(tmp_path):
    leads = {lead.document_id: lead for lead in wikipedia.leads()}
    homes = {question.number: question.home for question in trivia.questions(tmp_path)}
    assert len(homes) > 1200
    assert len(json.loads(next(tmp_path.iterdir()).read_text())) == len(homes)
    for split in SPLITS:
        for item in load("wikipedia", split=split, items=250, seed=1, cache_dir=tmp_path):
            home = leads[homes[int(item.item_id.removeprefix("wikipedia-"))]]
            assert wikipedia.split_of_lead(home) == split
            assert item.accepted[0] == item.answer.strip()
            assert item.accepted[0] in home.text
            assert item.references == item.wrong_references == item.gold == ()


def test_the_knowledge_base_holds_both_splits():
    base = knowledge_base("wikipedia")
    assert base.name == "wikipedia-leads"
    assert len(base.documents) > 10000
    assert {wikipedia.split_of_lead(document) for document in base.documents} == set(SPLITS)
