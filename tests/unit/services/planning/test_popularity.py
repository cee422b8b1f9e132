"""Cache hit ratios: the fast sums against sums over every rank, and Che's approximation against a real LRU cache."""

from __future__ import annotations

import random
from collections import OrderedDict
from itertools import accumulate

import numpy as np
import pytest

from services.planning.popularity import Popularity

EXPONENTS = [0.0, 0.6, 1.0, 1.4]


def wanted(count: int, exponent: float) -> np.ndarray:
    """What each reference is recalled, rank after rank: the slow twin's list."""
    return np.arange(1, count + 1, dtype=np.float64) ** -exponent


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("cached", [0, 1, 700, 4097, 100_000, 299_999, 300_000, 10**9])
def test_the_most_popular_share_is_the_plain_sum(exponent: float, cached: int) -> None:
    all_ranks = wanted(300_000, exponent)
    fast = Popularity(300_000, exponent).most_popular_share(cached)
    assert fast == pytest.approx(all_ranks[:cached].sum() / all_ranks.sum(), rel=1e-7, abs=1e-12)


def test_part_of_a_memory_counts_in_part() -> None:
    shares = [Popularity(10, 1.0).most_popular_share(cached) for cached in (2, 2.5, 3)]
    assert shares[1] == pytest.approx((shares[0] + shares[2]) / 2)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("cached", [3, 2000, 50_000, 99_000])
def test_the_least_recently_used_share_solves_ches_equation(exponent: float, cached: int) -> None:
    """The twin bisects the same equation over every rank, without any integral."""
    probability = wanted(100_000, exponent) / wanted(100_000, exponent).sum()
    low, high = 0.0, 1e12
    for _ in range(120):
        window = (low + high) / 2
        low, high = (window, high) if -np.expm1(-probability * window).sum() < cached else (low, window)
    slow = float((-np.expm1(-probability * high) * probability).sum())
    assert Popularity(100_000, exponent).least_recently_used_share(cached) == pytest.approx(slow, rel=1e-6)


@pytest.mark.parametrize("exponent", [0.7, 1.1])
def test_a_real_lru_cache_hits_as_often(exponent: float) -> None:
    count, cached, recalls = 2000, 200, 60_000
    chances = list(accumulate(wanted(count, exponent).tolist()))
    drawn = random.Random(7).choices(range(count), cum_weights=chances, k=recalls)
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number, reference in enumerate(drawn):
        hits += reference in cache and number >= recalls // 2
        cache[reference] = None
        cache.move_to_end(reference)
        if len(cache) > cached:
            cache.popitem(last=False)
    assert Popularity(count, exponent).least_recently_used_share(cached) == pytest.approx(
        hits / (recalls - recalls // 2), abs=0.015
    )


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0, 2.0])
def test_shares_rise_with_the_cache_and_lru_never_beats_the_best(exponent: float) -> None:
    popularity = Popularity(112_000_000, exponent)
    sizes = [0, 1, 1e3, 1e6, 5e7, 1.12e8]
    best = [popularity.most_popular_share(size) for size in sizes]
    recent = [popularity.least_recently_used_share(size) for size in sizes]
    assert best == sorted(best)
    assert recent == sorted(recent)
    assert all(low <= high + 1e-9 for low, high in zip(recent, best, strict=True))
    assert (best[0], best[-1], recent[0], recent[-1]) == (0.0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("share", [0.0, 1e-9, 1e-5, 1e-4, 0.02, 1.0])
def test_how_many_get_a_share(exponent: float, share: float) -> None:
    probability = wanted(20_000, exponent) / wanted(20_000, exponent).sum()
    assert Popularity(20_000, exponent).recalled_at_least(share) == int((probability >= share * (1 - 1e-9)).sum())
