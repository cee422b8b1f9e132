"""Questions among leads like the one that answers, and the index that says which are."""

from __future__ import annotations

import pytest

from services.datasets import near_leads
from services.datasets.draw import Draw
from services.datasets.item import BaseDocument, DatasetError, Passage
from services.datasets.lengths import chunks
from services.datasets.registry import load
from services.datasets.trivia import Question
from services.datasets.word_index import WordIndex

MOONS = ("Io", "Europa", "Ganymede", "Callisto", "Amalthea", "Himalia")
LEADS = (
    *(BaseDocument(name, name, f"{name} is a moon of Jupiter with craters and tides.") for name in MOONS),
    *(BaseDocument(name, name, f"{name} paints canvases.") for name in ("Mira", "Nilo", "Ovo")),
    BaseDocument("copy", "Copy", "Tides raise the volcanoes of Io, a moon of Jupiter with craters."),
)
ASKED = Question(3, "Which moon has volcanoes?", "Io", ("Io",), "Io")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(near_leads, "leads", lambda: LEADS)
    monkeypatch.setattr(near_leads, "questions", lambda cache_dir: (ASKED,))
    monkeypatch.setattr(near_leads, "split_of_lead", lambda lead: "held-out")


def test_distractors_are_like_the_home_and_do_not_hold_the_answer():
    (item,) = near_leads.load("held-out", Draw("x"), 1, 3, None)
    assert item.references[item.gold[0]] == LEADS[0].text
    others = {*item.references, *item.wrong_references} - {LEADS[0].text}
    assert others == {lead.text for lead in LEADS[1:6]}
    assert len(item.references) == 3
    assert item.question in item.prompt
    assert item.accepted == ("Io",)


def test_an_answer_in_a_later_chunk_comes_with_what_stands_before_it(monkeypatch):
    first = " ".join(["It is a moon of Jupiter with craters and tides."] * 12)
    long = BaseDocument("Io", "Io", f"{first} Volcanoes rise on Io.")
    monkeypatch.setattr(near_leads, "leads", lambda: (long, *LEADS[1:]))
    (item,) = near_leads.load("held-out", Draw("x"), 1, 3, None)
    *_, before, last = chunks(long.text)
    assert "Io" in last
    assert item.passages[item.gold[0]] == Passage(last, before)
    assert [one.preceding for one in item.passages if one.text != last] == ["", ""]


def test_more_references_than_there_are_near_leads():
    with pytest.raises(DatasetError, match="question 3 has 5 near leads, and 7 are needed: ask for fewer"):
        near_leads.load("held-out", Draw("x"), 1, 4, None)


def test_of_the_other_split_there_is_none():
    with pytest.raises(DatasetError, match="split that has 0"):
        near_leads.load("train", Draw("x"), 1, 2, None)


def test_the_nearest_share_rare_words():
    index = WordIndex(["a red harbour", "a blue harbour", "a red red moon", "a tide", "harbour of a blue moon"])
    assert index.nearest(1, 5) == [4, 0, 2, 3]
    assert index.nearest(1, 1) == [4]
    assert index.nearest(3, 5) == [0, 1, 2, 4]  # what they share is all the same: as they stand


@pytest.mark.slow  # indexes ten thousand texts
def test_the_real_leads(monkeypatch, tmp_path):
    monkeypatch.undo()
    items = load("wikipedia-near", split="held-out", items=50, seed=1, cache_dir=tmp_path)
    for item in items:
        assert len({*item.references, *item.wrong_references}) == 10
        holders = [text for text in item.references if item.accepted[0] in text]
        assert holders == [item.references[item.gold[0]]]
