"""The RAM tier: its bound, its promise about bytes, and its hit ratio against plain LRU on fixed traces."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory.frequency_sketch import FrequencySketch
from services.memory.ram_tier import ENTRY_OVERHEAD_BYTES, RamTier, entry_bytes

RECORD = bytes(8_000)
KEYS = 5_000


class PlainLru:
    """The obvious cache, as a yardstick."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._entries[key] = data
        while sum(map(entry_bytes, self._entries.values())) > self._capacity_bytes:
            self._entries.popitem(last=False)


class NaiveLfu:
    """The slow twin: true counts of the whole past, and the least asked for goes."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._entries: dict[str, bytes] = {}
        self._counts: Counter[str] = Counter()

    def get(self, key: str) -> bytes | None:
        self._counts[key] += 1
        return self._entries.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._entries[key] = data
        while sum(map(entry_bytes, self._entries.values())) > self._capacity_bytes:
            del self._entries[min(self._entries, key=lambda held: self._counts[held])]


def capacity(records: int) -> int:
    return records * entry_bytes(RECORD)


def hit_ratio(tier: RamTier | PlainLru | NaiveLfu, trace: Iterable[str]) -> float:
    hits = asked = 0
    for key in trace:
        asked += 1
        if tier.get(key) is not None:
            hits += 1
        else:
            tier.put(key, RECORD)
    return hits / asked


def zipf(seed: int, length: int, exponent: float = 1.0) -> Iterator[str]:
    weights = [1 / (rank + 1) ** exponent for rank in range(KEYS)]
    return (f"key {number}" for number in random.Random(seed).choices(range(KEYS), weights, k=length))


def with_scans(seed: int, length: int) -> Iterator[str]:
    """Zipf, and after every hundred requests a hundred that nobody asks for again."""
    fresh = iter(range(10**9))
    for position, key in enumerate(zipf(seed, length)):
        yield key
        if position % 100 == 99:
            yield from (f"scan {next(fresh)}" for _ in range(100))


def shifting(seed: int, length: int) -> Iterator[str]:
    """Zipf, with other favourites in every quarter."""
    for quarter in range(4):
        yield from (f"{quarter} {key}" for key in zipf(seed + quarter, length // 4))


def repeating(seed: int, length: int) -> Iterator[str]:
    """Zipf, each request repeated soon after: neighbouring query chunks read the same references."""
    recent: list[str] = []
    for key in zipf(seed, length // 2):
        recent = [*recent[-4:], key]
        yield key
        yield random.Random(key).choice(recent)


TRACES: dict[str, tuple[Callable[[int, int], Iterator[str]], float]] = {
    "zipf": (zipf, 0.08),
    "with scans": (with_scans, 0.1),
    "shifting": (shifting, 0.05),
    "repeating": (repeating, 0.02),
}
"""Trace, and by how much its hit ratio must exceed that of plain LRU."""


@pytest.mark.parametrize("name", TRACES)
def test_more_hits_than_plain_lru(name: str) -> None:
    trace, margin = TRACES[name]
    for seed in (1, 2):
        ours = hit_ratio(RamTier(capacity(100)), trace(seed, 20_000))
        lru = hit_ratio(PlainLru(capacity(100)), trace(seed, 20_000))
        assert ours > lru + margin, f"seed {seed}: {ours:.3f}, LRU {lru:.3f}"


def test_nearly_as_many_hits_as_with_true_counts() -> None:
    ours = hit_ratio(RamTier(capacity(100)), zipf(1, 20_000))
    naive = hit_ratio(NaiveLfu(capacity(100)), zipf(1, 20_000))
    assert ours > naive - 0.03, f"{ours:.3f}, with true counts {naive:.3f}"


def test_favourites_of_the_past_make_room() -> None:
    """True counts never forget: after a shift the naive cache is stuck, ours is not."""
    ours = hit_ratio(RamTier(capacity(100)), shifting(1, 40_000))
    naive = hit_ratio(NaiveLfu(capacity(100)), shifting(1, 40_000))
    assert ours > naive + 0.05, f"{ours:.3f}, with true counts {naive:.3f}"


def test_a_scan_leaves_the_favourites() -> None:
    tier = RamTier(capacity(50))
    favourites = [f"favourite {number}" for number in range(40)]
    hit_ratio(tier, favourites * 3)
    hit_ratio(tier, (f"scan {number}" for number in range(2_000)))
    assert sum(tier.get(key) is not None for key in favourites) >= 38


def test_what_fits_stays() -> None:
    tier = RamTier(capacity(120))
    keys = [f"key {number}" for number in range(100)]
    assert hit_ratio(tier, keys) == 0
    assert hit_ratio(tier, keys) == 1


@pytest.mark.parametrize("capacity_bytes", [0, 1, 100, len(RECORD) - 1, len(RECORD)])
def test_a_tier_smaller_than_a_record_holds_nothing(capacity_bytes: int) -> None:
    tier = RamTier(capacity_bytes)
    for _ in range(3):
        assert tier.get("a") is None
        tier.put("a", RECORD)
    assert (len(tier), tier.size_bytes) == (0, 0)


def test_many_small_records_count_their_overhead() -> None:
    tier = RamTier(100_000)
    for number in range(1_000):
        tier.put(f"key {number}", b"x")
    assert len(tier) <= 100_000 // ENTRY_OVERHEAD_BYTES


@given(
    capacity_bytes=st.integers(0, 40_000),
    steps=st.lists(
        st.tuples(st.sampled_from(["get", "put", "remove", "remove_where"]), st.integers(0, 30), st.integers(0, 9_000)),
        max_size=200,
    ),
)
def test_never_above_its_bound_and_never_another_record(capacity_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    tier = RamTier(capacity_bytes)
    put: dict[str, bytes] = {}
    for action, number, size in steps:
        key = f"key {number}"
        if action == "put":
            put[key] = number.to_bytes(1, "little") * size
            tier.put(key, put[key])
        elif action == "remove":
            put.pop(key, None)
            tier.remove(key)
        elif action == "remove_where":
            put = {other: data for other, data in put.items() if not other.endswith(str(number % 10))}
            tier.remove_where(lambda other, digit=number % 10: other.endswith(str(digit)))  # type: ignore[misc]
        found = tier.get(key)
        assert found is None or found is put[key]
        held = [data for other in put if (data := tier.get(other)) is not None]
        assert sum(map(entry_bytes, held)) == tier.size_bytes <= capacity_bytes
        assert len(held) == len(tier)


@given(st.lists(st.integers(0, 200), max_size=400))
def test_the_sketch_never_underestimates(requests: list[int]) -> None:
    sketch = FrequencySketch(1024)
    for number in requests:
        sketch.add(str(number))
    counts = Counter(requests)
    assert all(sketch.estimate(str(number)) >= min(15, count) for number, count in counts.items())


def test_the_sketch_is_nearly_exact_and_ages() -> None:
    sketch = FrequencySketch(4_000)
    for number in range(1_000):
        for _ in range(number % 10):
            sketch.add(str(number))
    wrong = sum(sketch.estimate(str(number)) != number % 10 for number in range(1_000))
    assert wrong <= 10
    sketch.age()
    assert sum(sketch.estimate(str(number)) != number % 10 // 2 for number in range(1_000)) <= 10
