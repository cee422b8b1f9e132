"""Choices that are the same on every machine and Python: seeds from words, and hashes that put things into a split."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

from services.datasets.item import Split

T = TypeVar("T")

HELD_OUT_SHARE = 0.2


def fraction(*words: object) -> float:
    """A number in [0, 1) that the words alone decide."""
    return _hash(*words) / 2**64


def split_of(group: str, held_out_share: float = HELD_OUT_SHARE) -> Split:
    """The split of a group of texts that must not be torn apart; no seed changes it."""
    return "held-out" if fraction("split", group) < held_out_share else "train"


def _hash(*words: object) -> int:
    text = "\0".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(b"memory3 draw v1\0" + text).digest()[:8], "big")


class Draw:
    """A source of choices. Uses only the part of `random` whose output is promised never to change."""

    def __init__(self, *words: object) -> None:
        """The words are the seed."""
        self._words = words
        self._random = random.Random(_hash(*words))

    def fork(self, *words: object) -> Draw:
        """Another source, which what is drawn from this one does not change."""
        return Draw(*self._words, *words)

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(self._random.random() * count)

    def between(self, first: int, last: int) -> int:
        """A whole number from first to last, both included."""
        return first + self.below(last - first + 1)

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return self._random.random() < share

    def one(self, things: Sequence[T]) -> T:
        """One of the things."""
        return things[self.below(len(things))]

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """All of the things, in a drawn order."""
        return self.some(things, len(things))

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """`count` different ones of the things, in a drawn order."""
        left = list(things)
        for place in range(count):
            other = place + self.below(len(left) - place)
            left[place], left[other] = left[other], left[place]
        return left[:count]
