"""Rendezvous hashing: who owns a key, and how little moves when nodes come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory3.rendezvous import ranked

KEYS = [f"key-{number}" for number in range(3_000)]


def owners(nodes: list[str]) -> dict[str, str]:
    return {key: ranked(key, nodes)[0] for key in KEYS}


def nodes(count: int) -> list[str]:
    return [f"10.0.0.{number}:7302" for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_node_has_its_fair_share(count: int) -> None:
    shares = Counter(owners(nodes(count)).values())
    assert len(shares) == count
    # Five standard deviations of a binomial share.
    fair, spread = len(KEYS) / count, 5 * (len(KEYS) * (1 / count) * (1 - 1 / count)) ** 0.5
    assert all(abs(share - fair) <= spread for share in shares.values())


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_node_that_comes_takes_its_share_and_nothing_else_moves(count: int) -> None:
    before, after = owners(nodes(count)), owners(nodes(count + 1))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {nodes(count + 1)[-1]}
    fair = len(KEYS) / (count + 1)
    assert 0.7 * fair < len(moved) < 1.3 * fair


def test_the_keys_of_a_node_that_goes_are_spread_over_all_others() -> None:
    there = nodes(5)
    before, after = owners(there), owners(there[1:])
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {before[key] for key in moved} == {there[0]}
    heirs = Counter(after[key] for key in moved)
    assert heirs.keys() == set(there[1:])
    assert max(heirs.values()) < 2 * min(heirs.values())


@given(st.text(), st.lists(st.text(), min_size=1, unique=True))
def test_the_order_of_the_nodes_does_not_matter(key: str, there: list[str]) -> None:
    assert ranked(key, there) == ranked(key, reversed(there))
    assert sorted(ranked(key, there)) == sorted(there)


def test_ranks_are_the_same_in_every_process_and_version() -> None:
    # Frozen: another order would empty the RAM of every tier that is upgraded.
    assert [node[7:8] for node in ranked("3f5a", nodes(4))] == ["2", "1", "4", "3"]
