"""Choices that must not change between machines, Pythons and versions of ours: floors are measured on them."""

from __future__ import annotations

from collections import Counter

import pytest

from services.datasets.draw import Draw, fraction, split_of
from services.datasets.fiction import names
from services.datasets.given import distractors, first, put_gold
from services.datasets.item import SPLITS, DatasetError


def test_draws_are_pinned():
    draw = Draw("a", 1)
    assert [draw.below(1000) for _ in range(4)] == [978, 992, 286, 672]
    assert draw.shuffled(range(6)) == [2, 4, 5, 1, 0, 3]
    made = [names.word(Draw(seed), split) for seed in (1, 2) for split in SPLITS]
    assert made == [
        "Rakol",
        "Riinler",
        "Segonmi",
        "Maasvil",
    ]
    assert round(fraction("x"), 6) == 0.375874


def test_a_fork_does_not_depend_on_what_was_drawn_before():
    one, other = Draw("a"), Draw("a")
    one.below(5)
    assert one.fork("b").below(10**9) == other.fork("b").below(10**9) == Draw("a", "b").below(10**9)


def test_draws_are_even():
    draw = Draw("even")
    counted = Counter(draw.one("abcd") for _ in range(4000))
    assert all(900 < count < 1100 for count in counted.values())
    assert {tuple(draw.some("abc", 2)) for _ in range(200)} == {(a, b) for a in "abc" for b in "abc" if a != b}
    assert {draw.between(3, 5) for _ in range(100)} == {3, 4, 5}


def test_a_share_of_the_groups_is_held_out():
    counted = Counter(split_of(f"group {number}") for number in range(5000))
    assert 900 < counted["held-out"] < 1100


def test_distractors():
    pool = [f"text {number}" for number in range(8)]
    found = distractors(Draw(1), pool, 5, unlike=("text 1",), without=("TEXT 2",))
    assert len(set(found)) == 5
    assert not {"text 1", "text 2"} & set(found)
    with pytest.raises(DatasetError, match="5 references asked, the set has only 0 that fit; ask for fewer"):
        distractors(Draw(1), pool, 5, without=("text",))


def test_the_gold_one_is_put_anywhere():
    places = Counter(put_gold(Draw(seed), "gold", ["a", "b"])[1] for seed in range(90))
    assert set(places) == {0, 1, 2}
    texts, place = put_gold(Draw(0), "gold", ["a", "b"])
    assert texts[place] == "gold"
    assert [text for text in texts if text != "gold"] == ["a", "b"]


def test_first():
    assert first([1, 2, 3], 2) == [1, 2]
    with pytest.raises(DatasetError, match="4 items asked of a split that has 3; ask for at most 3"):
        first([1, 2, 3], 4)
