"""Drawing from a pool: the items, and for each the gold reference among distractors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from services.datasets.draw import Draw
from services.datasets.item import DatasetError

T = TypeVar("T")

_TRIES = 1000
"""Draws for one distractor; far more than any real pool needs."""


def take(draw: Draw, pool: Sequence[T], items: int) -> list[T]:
    """`items` different ones of the pool, in a drawn order. Raises DatasetError if there are fewer."""
    return draw.some(pool, len(first(pool, items)))


def first(pool: Sequence[T], items: int) -> Sequence[T]:
    """The first `items` of the pool. Raises DatasetError if there are fewer."""
    if items > len(pool):
        raise DatasetError(f"{items} items asked of a split that has {len(pool)}; ask for at most {len(pool)}")
    return pool[:items]


def distractors(
    draw: Draw, pool: Sequence[str], count: int, *, unlike: Collection[str] = (), without: Collection[str] = ()
) -> tuple[str, ...]:
    """`count` different texts of the pool, none of `unlike`, none with a string of `without` in it.

    Raises DatasetError if the pool has too few.
    """
    banned = [string.casefold() for string in without]
    taken: list[str] = []
    for _ in range(_TRIES * count):
        if len(taken) == count:
            break
        text = draw.one(pool)
        if text not in unlike and text not in taken and not any(string in text.casefold() for string in banned):
            taken.append(text)
    if len(taken) < count:
        raise DatasetError(f"{count} references asked, the set has only {len(taken)} that fit; ask for fewer")
    return tuple(taken)


def put_gold(draw: Draw, gold: str, others: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """All of them with the gold one at a drawn place, and that place."""
    place = draw.below(len(others) + 1)
    return (*others[:place], gold, *others[place:]), place
