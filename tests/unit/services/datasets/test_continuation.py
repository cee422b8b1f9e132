"""Going on with an article: prompt and answer are a chunk of it, the references the chunks directly before."""

from __future__ import annotations

import pytest

from services.datasets import continuation
from services.datasets.continuation import articles
from services.datasets.item import SPLITS, DatasetError
from services.datasets.lengths import chunks, estimated_tokens, fits
from services.datasets.registry import load


def article_of(item_id: str) -> int:
    return int(item_id.split("-")[1])


@pytest.mark.parametrize("split", SPLITS)
def test_the_references_stand_directly_before_the_text(split):
    texts = {article.row: article.text for article, of in articles() if of == split}
    items = load("continuation", split=split, items=60, seed=2)
    assert len({item.item_id for item in items}) == 60
    for item in items:
        assert " ".join((*item.references, item.prompt + item.answer)) in texts[article_of(item.item_id)]
        assert item.gold == (0, 1, 2, 3, 4)
        pieces = chunks(texts[article_of(item.item_id)])
        first = pieces.index(item.references[0])
        assert item.preceding == ("" if first == 0 else pieces[first - 1], *item.references[:-1])
        assert all(map(fits, item.references))
        assert item.answer.startswith(" ")
        assert estimated_tokens(item.prompt) <= 16
        assert 64 <= estimated_tokens(item.answer) <= 112


def test_the_wrong_references_are_of_one_other_article_of_the_split():
    mine = {article.row: article.text for article, of in articles() if of == "held-out"}
    for item in load("continuation", split="held-out", items=20, seed=0):
        wrong = " ".join(item.wrong_references)
        assert item.wrong_preceding[1:] == item.wrong_references[:-1]
        assert len(item.wrong_references) == 5
        assert wrong not in mine[article_of(item.item_id)]
        assert any(wrong in text for text in mine.values())


def test_no_article_is_in_both_splits():
    train, held_out = ({article.text for article, of in articles() if of == split} for split in SPLITS)
    assert not train & held_out
    assert len(held_out) > 1500


def test_one_reference_is_the_chunk_before():
    texts = {article.row: article.text for article, _ in articles()}
    for item in load("continuation", split="held-out", items=10, seed=0, references=1):
        pieces = chunks(texts[article_of(item.item_id)])
        place = pieces.index(item.prompt + item.answer)
        assert item.references == (pieces[place - 1],)


def test_a_seed_chooses_and_settles():
    first, again, other = (load("continuation", split="held-out", items=30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert load("continuation", split="held-out", items=10, seed=1) == first[:10]
    assert {item.item_id for item in first} != {item.item_id for item in other}


def test_more_than_there_is_is_refused(monkeypatch):
    few = articles()[:40]
    monkeypatch.setattr(continuation, "articles", lambda: few)
    with pytest.raises(DatasetError, match=r"40 items asked of a split that has \d with 5 references; ask for at most"):
        load("continuation", split="held-out", items=40, seed=0)
