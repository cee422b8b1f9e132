"""Texts short enough to be references, cut at sentences, without a tokenizer: sets are the same for every model.

The estimate is set by SmolLM2's tokenizer (tests/unit/services/datasets/test_lengths.py); for another vocabulary of
that size it will be near. Whoever encodes a reference still cuts it at the plan's limit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from services.common.sentences import sentences

REFERENCE_TOKENS = 128
"""The longest reference of the memory plan."""
_LONGEST_ESTIMATE = 112 / REFERENCE_TOKENS
"""What is estimated at 112 tokens has at most 128, rare scripts apart."""
_PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has; that of joined texts is the sum of theirs."""
    return sum(map(_cost, _PIECE.findall(text)))


@functools.lru_cache(maxsize=1 << 16)
def _cost(piece: str) -> int:
    """Words by their length, a digit or mark one, other scripts two or three."""
    if not piece.isascii():
        return 2 if piece < "\u2000" else 3
    if piece.isupper():
        return 1 + (len(piece) - 1) // 3
    if len(piece) <= 4:
        return 1
    return 1 + (len(piece) - 1) // (4 if piece[0].isupper() else 5)


def fits(text: str, tokens: int = REFERENCE_TOKENS) -> bool:
    """Whether a text has at most so many tokens, by the estimate and its margin."""
    return estimated_tokens(text) <= tokens * _LONGEST_ESTIMATE


def spans(text: str) -> list[str]:
    """The sentences of a text."""
    return [text[start:end] for start, end in sentences(text)]


def chunks(text: str, tokens: int = REFERENCE_TOKENS) -> list[str]:
    """The text in pieces of whole sentences, each of at most `tokens`; longer sentences are cut between words."""
    most = tokens * _LONGEST_ESTIMATE
    pieces: list[str] = []
    for sentence in spans(text):
        if estimated_tokens(sentence) <= most:
            pieces.append(sentence)
        else:
            pieces += _joined(sentence.split(), most)
    return _joined(pieces, most)


def _joined(parts: Iterable[str], most: float) -> list[str]:
    """Neighbouring parts joined by spaces as long as they fit; a part that never fits is left out."""
    joined: list[list[str]] = []
    room = -1.0
    for part in parts:
        needed = estimated_tokens(part)
        if needed > most:
            continue
        if needed > room:
            joined.append([])
            room = most
        joined[-1].append(part)
        room -= needed
    return [" ".join(group) for group in joined]


def digest(sentences_: Sequence[str], order: Sequence[int], tokens: int = REFERENCE_TOKENS) -> str:
    """Those sentences that fit together, tried in this order (places in `sentences_`); joined in the text's order."""
    room = tokens * _LONGEST_ESTIMATE
    kept: list[int] = []
    for place in order:
        needed = estimated_tokens(sentences_[place])
        if needed <= room:
            kept.append(place)
            room -= needed
    return " ".join(sentences_[place] for place in sorted(kept))
