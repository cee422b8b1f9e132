"""What memories are read for while a codebook is trained: texts to write side by side, and what to ask of their reader.

Texts only. All are of the training split; evaluation asks about none of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.datasets import registry, wikipedia
from services.datasets.draw import Draw
from services.datasets.item import Item
from services.datasets.lengths import chunks


@dataclass(frozen=True)
class Task:
    """A context to read the memories of an exercise."""

    prompt: str
    """What stands before the answer; "" if a reference is to be said again."""
    answer: str


@dataclass(frozen=True)
class Exercise:
    """References whose memories stand side by side, and what is asked of them, one after the other."""

    references: tuple[str, ...]
    tasks: tuple[Task, ...]


QUESTION_SETS = ("fiction", "halueval")
USES = ("recital", *QUESTION_SETS)
"""Names of all uses; bits go where the mean of them suffers most."""


def exercises(use: str, items: int, references: int, seed: int) -> list[Exercise]:
    """`items` tasks, rounded down to full exercises of `references` references, each of which answers one.

    Equal arguments give equal exercises. Raises DatasetError.
    """
    if use == "recital":
        texts = list(itertools.islice(_texts(items, seed), items))
        answered = [(text, Task("", text)) for text in texts]
    else:
        drawn = registry.load(use, split="train", items=items, seed=seed)
        answered = [(_gold(item), Task(item.prompt, item.answer)) for item in drawn]
    return [Exercise(tuple(group), tuple(group.values())) for group in _full(answered, references)]


def _gold(item: Item) -> str:
    return item.references[item.gold[0]]


def _texts(items: int, seed: int) -> Iterator[str]:
    """In turn the first chunk of a Wikipedia lead, and an invented fact: names that no text has are lost first."""
    leads = [document for document in wikipedia.leads() if wikipedia.split_of_lead(document) == "train"]
    invented = iter(registry.load("fiction", split="train", items=items, seed=seed))
    for document in Draw("codebook", "train", seed).shuffled(leads):
        yield from chunks(document.text)[:1]
        yield from (_gold(item) for item in itertools.islice(invented, 1))


def _full(answered: Iterable[tuple[str, Task]], size: int) -> Iterator[dict[str, Task]]:
    """Groups of `size` different texts; what is left over is dropped."""
    group: dict[str, Task] = {}
    for text, task in answered:
        group.setdefault(text, task)
        if len(group) == size:
            yield group
            group = {}
