"""How much of the recalls a cache answers when some references are wanted far more often than others (Zipf's law).

The reference of rank i, counted from 1, is recalled in proportion to i^-x. Sums over ranks are exact up to rank 4096
and integrals above it, so that a hundred million references cost no more than ten thousand (relative error below 1e-7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import exp, log

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_EXACT_RANKS = 4096
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
"""Of each doubling of the rank; the summands are smooth in its logarithm."""


@dataclass(frozen=True)
class Popularity:
    """`references` of them, recalled by Zipf's law with this exponent; 0 is all alike."""

    references: int
    exponent: float

    def most_popular_share(self, cached: float) -> float:
        """Share of all recalls that go to the `cached` most popular references: the best any fixed cache can do.

        Caches that keep what is wanted often (least frequently used goes first) come near it.
        """
        if cached >= self.references:
            return 1.0
        ranks = int(cached)
        return (_sum(self._wanted, ranks) + (cached - ranks) * float(self._wanted(ranks + 1.0))) / self._total

    def least_recently_used_share(self, cached: float) -> float:
        """Share of recalls that find their memory in a cache of the `cached` most recently used ones.

        Che's approximation: a memory is there if it was recalled within the last t recalls, with t such that the cache
        is full. It asks that recalls do not depend on each other; neighbouring chunks that recall the same do better.
        """
        if cached >= self.references:
            return 1.0
        if cached < 1:
            return 0.0
        low, high = 0.0, log(self.references) + 1.0
        while self._in_cache(exp(high)) < cached:
            low, high = high, high * 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if self._in_cache(exp(middle)) < cached else (low, middle)
        window = exp(high)
        return _sum(lambda rank: self._probability(rank) * self._seen(rank, window), self.references)

    def recalled_at_least(self, share: float) -> int:
        """How many references get at least this share of all recalls each."""
        if share <= 0 or share * self._total <= self.references**-self.exponent:
            return self.references
        if share * self._total > 1:
            return 0
        return min(self.references, int((share * self._total) ** (-1 / self.exponent) * (1 + 1e-12)))

    @cached_property
    def _total(self) -> float:
        return _sum(self._wanted, self.references)

    def _wanted(self, rank: Numbers | float) -> Numbers:
        return np.asarray(rank, dtype=np.float64) ** -self.exponent

    def _probability(self, rank: Numbers) -> Numbers:
        return self._wanted(rank) / self._total

    def _seen(self, rank: Numbers, window: float) -> Numbers:
        return -np.expm1(-self._probability(rank) * window)

    def _in_cache(self, window: float) -> float:
        """Expected number of different references among `window` recalls."""
        return _sum(lambda rank: self._seen(rank, window), self.references)


def _sum(summand: Callable[[Numbers], Numbers], count: int) -> float:
    """The summand over ranks 1 to `count`."""
    total = float(summand(np.arange(1.0, min(count, _EXACT_RANKS) + 1)).sum())
    if count <= _EXACT_RANKS:
        return total
    # A sum from a to b is nearly the integral from a - 1/2 to b + 1/2; the error falls with the square of the rank.
    begin, end = log(_EXACT_RANKS + 0.5), log(count + 0.5)
    edges = np.linspace(begin, end, max(2, round((end - begin) / log(2)) + 1))
    half = np.diff(edges)[:, None] / 2
    ranks = np.exp(edges[:-1, None] + half * (1 + _NODES))
    return total + float((summand(ranks) * ranks * half * _WEIGHTS).sum())
