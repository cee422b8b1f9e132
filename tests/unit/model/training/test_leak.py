"""The leak filter against the table everybody knows, over every stretch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.leak import leaks, overlap

TOKENS = st.integers(0, 4)


def slow_overlap(text: list[int], reference: list[int]) -> float:
    """Equation 6 as it stands: every stretch, every pair of places."""
    best = 0
    for start in range(len(text)):
        stretch = text[start : start + 2 * len(reference) + 1]
        table = [[0] * (len(reference) + 1) for _ in range(len(stretch) + 1)]
        for i, mine in enumerate(stretch):
            for j, other in enumerate(reference):
                table[i + 1][j + 1] = table[i][j] + 1 if mine == other else max(table[i][j + 1], table[i + 1][j])
        best = max(best, table[-1][-1])
    return best / len(reference)


@given(st.lists(TOKENS, max_size=30), st.lists(TOKENS, min_size=1, max_size=7), st.sampled_from([0.3, 0.5, 0.9]))
def test_it_equals_the_slow_twin(text: list[int], reference: list[int], threshold: float) -> None:
    expected = slow_overlap(text, reference)
    assert overlap(text, reference) == expected
    assert leaks(text, reference, threshold) == (expected > threshold)


def test_a_copy_leaks_and_a_scattered_one_does_not() -> None:
    draw = random.Random(0)
    reference = [draw.randrange(1000) for _ in range(128)]
    around = [draw.randrange(1000, 2000) for _ in range(1000)]
    assert overlap([*around, *reference, *around], reference) == 1.0
    assert leaks([*around, *reference[:60], 7, *reference[60:], *around], reference)
    # All tokens are there and in order, but too far apart: nobody can copy from it.
    scattered = [token for place, one in enumerate(reference) for token in (*around[place * 7 : place * 7 + 7], one)]
    assert overlap(scattered, reference) == pytest.approx(33 / 128)
    assert not leaks(scattered, reference)


def test_an_empty_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        overlap([1], [])
