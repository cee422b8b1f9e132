"""HaluEval's questions: short passages with the answer in them, and splits that share no text."""

from __future__ import annotations

import json

import pytest

from services.datasets import halueval
from services.datasets.item import SPLITS, DatasetError
from services.datasets.lengths import fits, spans
from services.datasets.registry import load
from services.datasets.sources import Source


@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_stands_in_the_gold_reference_alone(split):
    items = load("halueval", split=split, items=300, seed=1)
    assert len({item.item_id for item in items}) == 300
    for item in items:
        answer = item.answer.strip().casefold()
        holders = [place for place, text in enumerate(item.references) if answer in text.casefold()]
        assert tuple(holders) == item.gold
        assert len(set(item.references)) == len(set(item.wrong_references)) == 5
        assert not set(item.references) & set(item.wrong_references)
        assert all(fits(text) for text in item.references)


def test_no_sentence_is_in_both_splits():
    train, held_out = (
        {sentence for passage in halueval.passages(split) for sentence in spans(passage) if len(sentence) > 40}
        for split in SPLITS
    )
    assert len(held_out) > 2000
    assert len(train) > 8000
    assert not train & held_out


def test_a_seed_chooses_and_settles():
    first, again, other = (load("halueval", split="held-out", items=40, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert load("halueval", split="held-out", items=10, seed=1) == first[:10]
    assert {item.item_id for item in first} != {item.item_id for item in other}


def test_the_choice_is_between_the_right_and_the_hallucinated_answer():
    items = load("halueval-choice", split="held-out", items=60, seed=1)
    assert all(len(set(item.choices)) == 2 and item.answer in item.choices for item in items)
    assert {item.choices.index(item.answer) for item in items} == {0, 1}


def test_more_than_there_are():
    with pytest.raises(DatasetError, match=r"set halueval, split held-out: 99999 items asked .* ask for at most \d{4}"):
        load("halueval", split="held-out", items=99999, seed=0)


@pytest.mark.parametrize("content", ["{}\n", "no json\n", json.dumps({"knowledge": 5})])
def test_a_damaged_file(tmp_path, monkeypatch, request, content):
    package = tmp_path / "fake_suite"
    package.mkdir()
    (package / "qa.jsonl").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(halueval, "HALUEVAL_QA", Source("fake_suite", "fake==1", "qa.jsonl"))
    halueval.forget()
    request.addfinalizer(halueval.forget)
    with pytest.raises(DatasetError, match=r"qa\.jsonl of the package cannot be read .* reinstall fake==1"):
        load("halueval", split="train", items=1, seed=0)
