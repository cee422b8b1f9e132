"""Medical terms and their definitions from the Human Phenotype Ontology, as questions with four choices.

Terms below the same parent are in one split, and serve each other as wrong choices.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from services.datasets import lengths
from services.datasets.draw import Draw, split_of
from services.datasets.given import put_gold, take
from services.datasets.item import Item, Split
from services.datasets.sources import PHENOTYPES

_CHOICES = 4
_DEFINITION_TOKENS = range(8, 61)
"""Estimated; shorter definitions say nothing, longer ones crowd the prompt."""
_FIELD = re.compile(r"^(id|name|def|is_a|is_obsolete): (.*)$", re.MULTILINE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Term:
    """One term with what a question needs."""

    key: str
    name: str
    definition: str
    parent: str
    split: Split

    @property
    def reference(self) -> str:
        """The term as a text to remember."""
        return f"{self.name}: {self.definition}"


@functools.cache
def terms() -> tuple[Term, ...]:
    """The terms with a definition of fair length that does not hold the term's name; in the file's order."""
    with PHENOTYPES.parsing() as path:
        stanzas = path.read_text(encoding="utf-8").split("\n[Term]\n")[1:]
        found = tuple(term for stanza in stanzas if (term := _parse(stanza)) is not None)
        if not found:
            raise ValueError("no definition in it")
        return found


def _parse(stanza: str) -> Term | None:
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(stanza.partition("\n[")[0]):
        fields.setdefault(name, value)
    quoted = _QUOTED.match(fields.get("def", ""))
    if quoted is None or "is_obsolete" in fields or "is_a" not in fields:
        return None
    definition = " ".join(_ESCAPE.sub(r"\1", quoted[1]).split())
    parent = fields["is_a"].split()[0]
    fair = lengths.estimated_tokens(definition) in _DEFINITION_TOKENS
    if not fair or fields["name"].casefold() in definition.casefold():
        return None
    return Term(fields["id"], fields["name"], definition, parent, split_of(f"phenotype {parent}"))


def load(split: Split, draw: Draw, items: int, references: int) -> list[Item]:
    """Drawn terms; half of them asked by definition, half by name."""
    pool = [term for term in terms() if term.split == split]
    families: dict[str, list[Term]] = {}
    for term in pool:
        families.setdefault(term.parent, []).append(term)
    asked = take(draw, pool, items)
    return [
        _item(term, families[term.parent], pool, draw.fork(term.key), references, by_name=place % 2 == 1)
        for place, term in enumerate(asked)
    ]


def _item(term: Term, family: list[Term], pool: list[Term], draw: Draw, references: int, *, by_name: bool) -> Item:
    others = _others(draw, (term,), family, pool, max(_CHOICES - 1, references - 1))
    wrong = _others(draw, (term, *others), [], pool, references)
    given, gold = put_gold(draw, term.reference, [other.reference for other in others[: references - 1]])
    choices = draw.shuffled([term, *others[: _CHOICES - 1]])
    if by_name:
        prompt = f'Question: What does the medical term "{term.name}" mean?\nAnswer:'
        answers = {one: f" {one.definition}" for one in choices}
    else:
        prompt = f"Question: Which medical term is defined as: {term.definition}\nAnswer:"
        answers = {one: f" {one.name}" for one in choices}
    return Item(
        item_id=f"phenotypes-{term.key}-{'definition' if by_name else 'term'}",
        kind="definition" if by_name else "term",
        prompt=prompt,
        answer=answers[term],
        references=given,
        gold=(gold,),
        wrong_references=tuple(other.reference for other in wrong),
        accepted=(answers[term].strip(),),
        choices=tuple(answers[one] for one in choices),
    )


def _others(draw: Draw, apart_from: tuple[Term, ...], family: list[Term], pool: list[Term], count: int) -> list[Term]:
    """Other terms, of the family first; all of different names and definitions."""
    names = {term.name for term in apart_from}
    definitions = {term.definition for term in apart_from}
    found: list[Term] = []
    waiting = draw.shuffled(family)
    while len(found) < count:
        term = waiting.pop() if waiting else draw.one(pool)
        if term.name not in names and term.definition not in definitions:
            names.add(term.name)
            definitions.add(term.definition)
            found.append(term)
    return found
