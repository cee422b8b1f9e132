"""Texts short enough to be references, cut at sentences, without a tokenizer: sets are the same for every model.

The estimate is set by SmolLM2's tokenizer (tests/unit/services/datasets/test_lengths.py); for another vocabulary of
that size it will be near. Whoever encodes a reference still cuts it at the plan's limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.common.sentences import sentences

REFERENCE_TOKENS = 128
"""The longest reference of the memory plan."""
_LONGEST_ESTIMATE = 112 / REFERENCE_TOKENS
"""What is estimated at 112 tokens has at most 128, rare scripts apart."""
_PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: words by their length, a digit or mark one, other scripts two or three."""
    total = 0
    for piece in _PIECE.findall(text):
        if not piece.isascii():
            total += 2 if piece < "\u2000" else 3
        elif len(piece) <= 4:
            total += 1
        else:
            total += 1 + (len(piece) - 1) // (4 if piece[0].isupper() else 5)
    return total


def fits(text: str, tokens: int = REFERENCE_TOKENS) -> bool:
    """Whether a text has at most so many tokens, by the estimate and its margin."""
    return estimated_tokens(text) <= tokens * _LONGEST_ESTIMATE


def spans(text: str) -> list[str]:
    """The sentences of a text."""
    return [text[start:end] for start, end in sentences(text)]


def chunks(text: str, tokens: int = REFERENCE_TOKENS) -> list[str]:
    """The text in pieces of whole sentences, each of at most `tokens`; longer sentences are cut between words."""
    pieces: list[str] = []
    for sentence in spans(text):
        if pieces and fits(f"{pieces[-1]} {sentence}", tokens):
            pieces[-1] += f" {sentence}"
        else:
            pieces += _parts(sentence, tokens)
    return pieces


def _parts(sentence: str, tokens: int) -> list[str]:
    if fits(sentence, tokens):
        return [sentence]
    parts: list[str] = []
    for word in sentence.split():
        if parts and fits(f"{parts[-1]} {word}", tokens):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return [part for part in parts if fits(part, tokens)]


def digest(sentences_: Sequence[str], order: Sequence[int], tokens: int = REFERENCE_TOKENS) -> str:
    """Those sentences that fit together, tried in this order (places in `sentences_`); joined in the text's order."""
    kept: list[int] = []
    for place in order:
        tried = sorted([*kept, place])
        if fits(" ".join(sentences_[other] for other in tried), tokens):
            kept = tried
    return " ".join(sentences_[place] for place in kept)
