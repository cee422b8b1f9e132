"""The leak filter: a training sequence may not carry a reference that gives it away (paper 3.6, equation 6).

Knows token ids only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

LEAK_THRESHOLD = 0.9
"""Paper 3.6: a reference that overlaps more than this is left out."""


def overlap(text: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """Share of the reference that stands, in order, in some stretch of the text twice as long as the reference.

    The longest common subsequence whose first and last tokens are at most 2 |reference| apart in the text, by the
    reference's length. Raises ValueError for an empty reference.
    """
    return _longest(text, reference) / len(reference)


def leaks(text: Sequence[Hashable], reference: Sequence[Hashable], threshold: float = LEAK_THRESHOLD) -> bool:
    """Whether `overlap` is above the threshold; most pairs are decided without computing it."""
    enough = threshold * len(reference)
    # Where the stretch does not matter the subsequence can only be longer.
    if _common_subsequence(text, _places(reference), len(reference)) <= enough:
        return False
    return _longest(text, reference, stop_above=enough) > enough


def _longest(text: Sequence[Hashable], reference: Sequence[Hashable], stop_above: float = float("inf")) -> int:
    if not reference:
        raise ValueError("the reference has no tokens; an overlap needs at least one")
    places = _places(reference)
    span = 2 * len(reference) + 1
    best = 0
    for start, token in enumerate(text):
        # A longest subsequence begins with a common token, and no later start has more text left than it needs.
        if token not in places or len(text) - start <= best:
            continue
        best = max(best, _common_subsequence(text[start : start + span], places, len(reference)))
        if best > stop_above or best == len(reference):
            break
    return best


def _places(reference: Sequence[Hashable]) -> dict[Hashable, int]:
    """Token -> the bits of its places in the reference."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(reference):
        places[token] = places.get(token, 0) | 1 << place
    return places


def _common_subsequence(text: Sequence[Hashable], places: dict[Hashable, int], length: int) -> int:
    """Length of the longest common subsequence, a whole row of the table in one integer (Hyyrö 2004).

    A zero bit is a place of the reference where the row's value rises by one.
    """
    full = (1 << length) - 1
    row = full
    for token in text:
        match = row & places.get(token, 0)
        row = (row + match | row - match) & full
    return length - row.bit_count()
