"""Where sentences end. Plain rules for prose with spaces between words, and for CJK full stops.

Knows no tokens. Wrong guesses cost a slightly worse cut and never text: the spans and the white space between them
make up the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_END = re.compile(
    r"""
    (?P<paragraph>\n[^\S\n]*\n\s*+)                                   # a blank line ends whatever went before
    | (?<![.!?…])(?P<mark>[.!?…]++)["'”’)\]»]{0,4}+(?P<gap>\s++)      # marks, closing quotes, white space
    | [。！？]++["'”’）」』]{0,4}+                                      # CJK: no white space follows
    """,
    re.VERBOSE,
)

_ABBREVIATION_WORDS = (
    # Titles, then Latin, then what stands before names, numbers and dates.
    "mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt gov sen rep pres "
    "e.g i.e eg ie etc vs cf ca c al viz approx est "
    "inc ltd co corp dept univ assn bros vol pp ed eds trans fig figs eq sec ch op "
    "jan feb mar apr jun jul aug sep sept oct nov dec mt ft mts"
)
_ABBREVIATIONS = frozenset(_ABBREVIATION_WORDS.split())
_BEFORE_NUMBERS = frozenset(["no", "nos", "p", "art", "para", "ver"])
_LAST_WORD = re.compile(r"\S*$")
_OPENING = "([{\"'“‘«"
_WORD_WINDOW = 24
"""Longer words than this are no abbreviations."""


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, without white space at either end; lazily, in linear time."""
    start = 0
    for match in _END.finditer(text):
        if match["mark"] and not _ends_sentence(text, match):
            continue
        yield from _trimmed(text, start, match.end())
        start = match.end()
    yield from _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 1]
    if "\n" in match["gap"] and match["gap"].count("\n") > 1:
        return True
    if following.islower():
        return False
    if match["mark"] != ".":
        return True
    before = text[max(0, match.start() - _WORD_WINDOW) : match.start()]
    found = _LAST_WORD.search(before)
    word = found.group().lstrip(_OPENING) if found else ""
    if word.casefold() in _ABBREVIATIONS:
        return False
    if word.casefold() in _BEFORE_NUMBERS and following.isdigit():
        return False
    # Initials ("J. R. R. Tolkien") and dotted letters ("U.S. Navy"); a lone "I" is mostly the pronoun.
    letters = word.split(".")
    return word == "I" or not all(len(letter) == 1 and letter.isalpha() for letter in letters)
