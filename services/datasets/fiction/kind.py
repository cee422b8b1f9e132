"""What a kind of fact is made of: slots to fill, sentences that state them, questions that ask for them.

The kinds themselves are data, in the TOML files beside this one.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from services.datasets.draw import Draw
from services.datasets.fiction import names
from services.datasets.item import Split

Maker = Callable[[Draw, Split], str]
"""Draws the value of a slot."""


@dataclass(frozen=True)
class Fact:
    """One slot that can be asked for. Texts name slots in braces; {it} is the entity again, by name, noun or "it"."""

    slot: str
    question: str
    stem: str
    """The answer's sentence up to the answer."""
    says: tuple[str, ...]
    """Sentences that state it, among others slots perhaps; one is drawn for a reference."""


@dataclass(frozen=True)
class Kind:
    """One kind of entity."""

    name: str
    noun: str
    """What {it} may be: "the bridge"."""
    slots: Mapping[str, Maker]
    """"name" among them; those that no fact asks for are filling."""
    opening: tuple[str, ...]
    """First sentences; each names the entity."""
    facts: tuple[Fact, ...]


@functools.cache
def kinds(split: Split) -> tuple[Kind, ...]:
    """The kinds of a split; no kind is in both."""
    file = resources.files(__package__) / f"{split.replace('-', '_')}.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(_kind(name, entry) for name, entry in content.items())


def _kind(name: str, entry: dict[str, Any]) -> Kind:
    return Kind(
        name=name,
        noun=entry["noun"],
        slots={slot: _MAKERS[how](*arguments) for slot, (how, *arguments) in entry["slots"].items()},
        opening=tuple(entry["opening"]),
        facts=tuple(
            Fact(slot, fact["question"], fact["stem"], tuple(fact["says"])) for slot, fact in entry["facts"].items()
        ),
    )


def _place() -> Maker:
    return names.word


def _person() -> Maker:
    return names.person


def _named(*patterns: str) -> Maker:
    """A name in one of these patterns, in which {} is an invented word."""
    return lambda draw, split: draw.one(patterns).format(names.word(draw, split))


def _year(first: int, last: int) -> Maker:
    return lambda draw, split: str(draw.between(first, last))


def _number(least: int, most: int, unit: str) -> Maker:
    """A number with thousands separated, and its unit."""
    return lambda draw, split: f"{draw.between(least, most):,} {unit}"


def _one_of(*values: str) -> Maker:
    return lambda draw, split: draw.one(values)


def _two_of(first: str, second: str) -> Maker:
    """Two words out of two lists separated by commas: "pale blue", "dry mouth"."""
    heads, tails = first.split(", "), second.split(", ")
    return lambda draw, split: f"{draw.one(heads)} {draw.one(tails)}"


def _both_of(values: str) -> Maker:
    """Two different ones of a list separated by commas: "copper and tin"."""
    listed = values.split(", ")
    return lambda draw, split: " and ".join(draw.some(listed, 2))


_MAKERS: Mapping[str, Callable[..., Maker]] = {
    "place": _place,
    "person": _person,
    "named": _named,
    "year": _year,
    "number": _number,
    "one_of": _one_of,
    "two_of": _two_of,
    "both_of": _both_of,
}
