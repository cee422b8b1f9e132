"""Medical terms: four choices of which one is right, told apart by the gold reference."""

from __future__ import annotations

import pytest

from services.datasets import phenotypes
from services.datasets.item import SPLITS, DatasetError
from services.datasets.lengths import fits
from services.datasets.registry import load
from services.datasets.sources import Source


@pytest.mark.parametrize("split", SPLITS)
def test_items_ask_both_ways_with_four_choices(split):
    items = load("phenotypes", split=split, items=200, seed=4)
    assert {kind: sum(item.kind == kind for item in items) for kind in ("term", "definition")} == {
        "term": 100,
        "definition": 100,
    }
    for item in items:
        assert len(set(item.choices)) == 4
        assert item.answer in item.choices
        assert len(set(item.references)) == 5
        [gold] = item.gold
        name, _, definition = item.references[gold].partition(": ")
        assert item.answer.strip() in (name, definition) or item.answer.strip() in item.references[gold]
        assert (definition if item.kind == "term" else name) in item.prompt
        assert not set(item.references) & set(item.wrong_references)
        assert len(item.wrong_references) == 5
        assert all(fits(text) for text in item.references)
    assert {item.choices.index(item.answer) for item in items} == set(range(4))
    assert {item.gold[0] for item in items} == set(range(5))


def test_terms_of_one_parent_are_in_one_split():
    parents = {split: {term.parent for term in phenotypes.terms() if term.split == split} for split in SPLITS}
    assert not parents["train"] & parents["held-out"]
    assert len(parents["held-out"]) > 200


def test_definitions_are_unescaped_and_do_not_name_the_term():
    for term in phenotypes.terms():
        assert "\\" not in term.definition
        assert term.name.casefold() not in term.definition.casefold()


def test_few_references_still_have_the_gold_one():
    for item in load("phenotypes", split="train", items=20, seed=0, references=1):
        assert item.gold == (0,)
        assert len(item.references) == len(item.wrong_references) == 1
        assert len(item.choices) == 4


@pytest.mark.parametrize("content", ["", "[Term]\nid: A\n", "\n[Term]\nname: a\n"])
def test_a_damaged_file(tmp_path, monkeypatch, request, content):
    (tmp_path / "fake_terms").mkdir()
    (tmp_path / "fake_terms" / "hp.obo").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(phenotypes, "PHENOTYPES", Source("fake_terms", "fake==1", "hp.obo"))
    phenotypes.terms.cache_clear()
    request.addfinalizer(phenotypes.terms.cache_clear)
    with pytest.raises(DatasetError, match=r"hp\.obo of the package cannot be read .* reinstall fake==1"):
        load("phenotypes", split="train", items=1, seed=0)
