"""Going on with a text: prompt and answer make up its end, the gold references its beginning."""

from __future__ import annotations

import pytest

from services.datasets.item import SPLITS
from services.datasets.lengths import estimated_tokens, fits
from services.datasets.registry import load
from services.datasets.wikipedia import leads, split_of_lead


@pytest.mark.parametrize("split", SPLITS)
def test_the_parts_come_from_one_text_in_their_order(split):
    texts = {lead.document_id: " ".join(lead.text.split()) for lead in leads() if split_of_lead(lead) == split}
    for item in load("continuation", split=split, items=100, seed=2):
        whole = texts[item.item_id.removeprefix("continuation-")]
        end = " ".join((item.prompt + item.answer).split())
        assert whole.endswith(end)
        before = whole.removesuffix(end)
        assert item.gold
        for place, reference in enumerate(item.references):
            assert (" ".join(reference.split()) in before) == (place in item.gold)
        assert 60 < estimated_tokens(item.prompt + item.answer) <= 140
        assert estimated_tokens(item.answer) > 40
        assert item.answer.startswith(" ")


@pytest.mark.parametrize("split", SPLITS)
def test_references_are_of_the_split_and_five(split):
    texts = " ".join(lead.text for lead in leads() if split_of_lead(lead) == split)
    mine = " ".join(texts.split())
    for item in load("continuation", split=split, items=30, seed=0):
        assert len(set(item.references)) == len(set(item.wrong_references)) == 5
        assert not set(item.references) & set(item.wrong_references)
        assert all(fits(text) and " ".join(text.split()) in mine for text in item.references)


def test_one_reference_is_the_chunk_before():
    for item in load("continuation", split="held-out", items=20, seed=0, references=1):
        assert item.gold == (0,)


def test_a_seed_chooses_and_settles():
    first, again, other = (load("continuation", split="held-out", items=30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert {item.item_id for item in first} != {item.item_id for item in other}
