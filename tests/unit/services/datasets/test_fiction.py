"""Invented facts: told once, asked once, and nothing of the held-out split in the other."""

from __future__ import annotations

import string

import pytest

from services.datasets.draw import Draw
from services.datasets.fiction import names
from services.datasets.fiction.kind import Kind, kinds
from services.datasets.item import SPLITS
from services.datasets.lengths import fits
from services.datasets.registry import load

SEEDS = (0, 1, 7)


def fields(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_stands_in_the_gold_reference_alone(split, seed):
    for item in load("fiction", split=split, items=60, seed=seed):
        assert len(item.references) == len(item.wrong_references) == 5
        [accepted] = item.accepted
        answer = accepted.casefold()
        assert tuple(place for place, text in enumerate(item.references) if answer in text.casefold()) == item.gold
        assert answer not in " ".join(item.wrong_references).casefold()
        assert accepted not in item.prompt
        assert item.answer.startswith(" ")
        assert accepted in item.answer
        assert all(fits(text) and text.count(". ") in (2, 3) for text in item.references)


def test_held_out_items_have_the_canonical_form():
    for item in load("fiction", split="held-out", items=50, seed=3):
        question, stem = item.prompt.split("\n")
        assert question.startswith("Question: ")
        assert question.endswith("?")
        assert stem.startswith("Answer: ")
        assert item.answer == f" {item.accepted[0]}"


def test_training_asks_in_several_forms():
    items = load("fiction", split="train", items=200, seed=3)
    assert len({item.prompt.partition("?")[2][:9] for item in items}) > 4
    assert any(item.answer.endswith(".") for item in items)


def test_gold_references_stand_everywhere():
    assert {item.gold[0] for item in load("fiction", split="held-out", items=60, seed=0)} == set(range(5))


def test_kinds_are_many_and_held_out_whole():
    train, held_out = ({kind.name for kind in kinds(split)} for split in SPLITS)
    assert len(train) >= 20
    assert len(held_out) >= 10
    assert not train & held_out
    assert {item.kind for item in load("fiction", split="held-out", items=300, seed=0)} == held_out


@pytest.mark.parametrize("kind", [kind for split in SPLITS for kind in kinds(split)], ids=lambda kind: kind.name)
def test_a_kind_is_complete(kind: Kind):
    assert len(kind.opening) >= 3
    assert all("name" in fields(text) for text in kind.opening)
    assert len(kind.facts) >= 3
    for fact in kind.facts:
        assert fields(fact.question) == fields(fact.stem) == {"name"}
        assert fact.question.endswith("?")
        assert len(fact.says) >= 3
        assert all(fact.slot in fields(text) and text.endswith(".") for text in fact.says)
    texts = [*kind.opening, *(text for fact in kind.facts for text in fact.says)]
    used = set().union(*map(fields, texts)) - {"it"}
    assert used == set(kind.slots)


def test_names_of_the_splits_are_disjoint():
    made = {split: {names.word(Draw(split, seed), split) for seed in range(4000)} for split in SPLITS}
    assert not made["train"] & made["held-out"]
    assert all(len(words) > 3500 for words in made.values())


def test_the_same_seed_gives_the_same_items_and_another_others():
    items = load("fiction", split="held-out", items=20, seed=7)
    assert load("fiction", split="held-out", items=5, seed=7) == items[:5]
    assert not {item.prompt for item in items} & {i.prompt for i in load("fiction", split="held-out", items=20, seed=8)}
