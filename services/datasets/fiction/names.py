"""Invented names: syllables of eight sound systems. The two splits draw from disjoint syllables and share no name."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from services.datasets.draw import Draw, split_of
from services.datasets.item import Split

_HELD_OUT_SYLLABLES = 0.3
_LENGTHS = range(4, 12)
"""Letters of a word; shorter ones are too often real, longer ones unreadable."""


@dataclass(frozen=True)
class SoundSystem:
    """What syllables are made of; parts are separated by spaces, "-" stands for none."""

    onsets: str
    vowels: str
    codas: str
    endings: str
    """What a word may end in, after its last syllable; they say nothing of the split."""


SOUND_SYSTEMS = (
    SoundSystem("b d f g h k l m n r s t v br dr kv sk st", "a e i o u y", "- - l n r rd ld st v", "- - en a und ik"),
    SoundSystem("b c d f g l m n p r s t v br cl fl pr tr", "a e i o ia io", "- - - l n r s", "- a o ano ello ina"),
    SoundSystem("b d g k l m n p r s t v z dr kr pl sl st vl zd", "a e i o u", "- - k l m n r sh v", "- a ov itsa ek"),
    SoundSystem("b ch d g h j k m n r s sh t ts y z", "a e i o u", "- - - - n", "- - ra ko mi"),
    SoundSystem("h j k l m n p r s t v", "a aa e i ii o u uo ai", "- - l n r s", "- - nen la ri"),
    SoundSystem("b d f h j k kh m n q r s sh t z", "a i u", "- b d l m n r sh", "- a im at"),
    SoundSystem("h k l m n p t w f v", "a e i o u", "-", "- - - loa nui"),
    SoundSystem("b c d f g gw ll m n p r rh t", "a e i o w y", "- dd l n r s th", "- yn wen or"),
)


@functools.cache
def _syllables(system: int, split: Split) -> tuple[str, ...]:
    sounds = SOUND_SYSTEMS[system]
    codas = dict.fromkeys(sounds.codas.replace("-", "").split(" "))
    made = {
        onset + vowel + coda for onset in sounds.onsets.split() for vowel in sounds.vowels.split() for coda in codas
    }
    return tuple(sorted(s for s in made if split_of(f"{system} {s}", _HELD_OUT_SYLLABLES) == split))


def word(draw: Draw, split: Split, system: int | None = None) -> str:
    """A name of one word, with a capital letter; of one sound system, or of any."""
    while True:
        chosen = draw.below(len(SOUND_SYSTEMS)) if system is None else system
        syllables = _syllables(chosen, split)
        made = "".join(draw.one(syllables) for _ in range(2 if draw.chance(0.7) else 3))
        made += draw.one(SOUND_SYSTEMS[chosen].endings.split(" ")).replace("-", "")
        # Different syllables can make the same word; the hash of the whole settles whose it is.
        if len(made) in _LENGTHS and split_of(f"name {made}", _HELD_OUT_SYLLABLES) == split:
            return made.capitalize()


def person(draw: Draw, split: Split) -> str:
    """First and last name, mostly of one sound system."""
    system = draw.below(len(SOUND_SYSTEMS))
    return f"{word(draw, split, system)} {word(draw, split, None if draw.chance(0.2) else system)}"
