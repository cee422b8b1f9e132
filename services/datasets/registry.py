"""Every set by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.datasets import halueval
from services.datasets.draw import Draw
from services.datasets.fiction import generate as fiction
from services.datasets.item import SPLITS, DatasetError, Item, Split
from services.datasets.running_text import text_chunks

__all__ = ["load", "names", "text_chunks"]

_Loader = Callable[[Split, Draw, int, int], list[Item]]
"""(split, source of choices, items, references) -> items."""

_SETS: dict[str, _Loader] = {
    "fiction": fiction.load,
    "halueval": partial(halueval.load, choice=False),
    "halueval-choice": partial(halueval.load, choice=True),
}


def names() -> tuple[str, ...]:
    """The names of all sets."""
    return tuple(_SETS)


def load(name: str, *, split: Split, items: int, seed: int, references: int = 5) -> list[Item]:
    """`items` items of a set: for one seed the same on every machine, with another seed others.

    Raises DatasetError for an unknown set or split, a missing or damaged package, or more items than there are.
    """
    loader = _SETS.get(name)
    if loader is None:
        raise DatasetError(f"no set {name!r}; known: {', '.join(_SETS)}")
    if split not in SPLITS:
        raise DatasetError(f"no split {split!r}; known: {', '.join(SPLITS)}")
    if items < 1:
        raise DatasetError(f"{items} items asked; ask for at least 1")
    if references < 1:
        raise DatasetError(f"{references} references asked; ask for at least 1")
    try:
        return loader(split, Draw(name, split, seed), items, references)
    except DatasetError as error:
        raise DatasetError(f"set {name}, split {split}: {error}") from error
