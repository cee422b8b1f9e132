"""Which texts of a collection share rare words. For choosing questions and distractors only; no search for users.

Weights are whole numbers, so that sums, and with them choices, are the same on every machine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_LARGEST_SHARE = 0.02
"""Words that more of the texts have say nothing of what two texts have in common."""
_FEWEST_HOLDERS = 10
"""So many texts may share a word in any case: a small collection has no rare words."""


def words_of(text: str) -> frozenset[str]:
    """The different words, in lower case."""
    return frozenset(_WORD.findall(text.casefold()))


class WordIndex:
    """The words of some texts, and the texts of each word."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.words = [words_of(text) for text in texts]
        self.holders: dict[str, set[int]] = {}
        """Word -> places of the texts that have it."""
        for place, words in enumerate(self.words):
            for word in words:
                self.holders.setdefault(word, set()).add(place)

    def weight(self, word: str) -> int:
        """How rare a word is."""
        return round(1000 * math.log((len(self.words) + 1) / (len(self.holders.get(word, ())) + 1)))

    def nearest(self, place: int, count: int) -> list[int]:
        """Places of at most `count` texts that share most with this one, by the weight of rare words; nearest first."""
        most = max(_FEWEST_HOLDERS, round(_LARGEST_SHARE * len(self.words)))
        shared: Counter[int] = Counter()
        for word in self.words[place]:
            holders = self.holders[word]
            if 1 < len(holders) <= most:
                weight = self.weight(word)
                for other in holders:
                    shared[other] += weight
        del shared[place]
        return sorted(shared, key=lambda other: (-shared[other], other))[:count]
