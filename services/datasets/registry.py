"""Every set by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from services.datasets import continuation, halueval, licences, near_leads, phenotypes, trivia, wikipedia
from services.datasets.draw import Draw
from services.datasets.fiction import generate as fiction
from services.datasets.item import SPLITS, BaseDocument, DatasetError, Item, KnowledgeBase, Split
from services.datasets.running_text import text_chunks

__all__ = ["MEASURED_ONLY", "knowledge_base", "load", "names", "text_chunks"]

_Loader = Callable[[Split, Draw, int, int], list[Item]]
"""(split, source of choices, items, references) -> items."""

_SETS: dict[str, _Loader] = {
    "fiction": fiction.load,
    "halueval": partial(halueval.load, choice=False),
    "halueval-choice": partial(halueval.load, choice=True),
    "wikipedia": partial(trivia.load, cache_dir=None),
    "wikipedia-near": partial(near_leads.load, cache_dir=None),
    "continuation": continuation.load,
    "licences": licences.load,
    "phenotypes": phenotypes.load,
}

MEASURED_ONLY = frozenset({"continuation"})
"""Sets of texts whose owners are not known: nothing is trained on them, of neither split."""

_BASES: dict[str, tuple[str, Callable[[], Sequence[BaseDocument]]]] = {
    "wikipedia": ("wikipedia-leads", wikipedia.leads),
    "licences": ("licences", licences.documents),
}
"""Set -> name and documents of what retrieval searches for it."""


def names() -> tuple[str, ...]:
    """The names of all sets."""
    return tuple(_SETS)


def load(
    name: str, *, split: Split, items: int, seed: int, references: int = 5, cache_dir: Path | None = None
) -> list[Item]:
    """`items` items of a set: for one seed the same on every machine, with another seed others.

    The items have `references` given references, or none where retrieval decides (see `knowledge_base`). What takes
    seconds to make is kept in `cache_dir`, if one is given. Raises DatasetError for an unknown set or split, a missing
    or damaged package, or more items than there are.
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
    if isinstance(loader, partial) and "cache_dir" in loader.keywords:
        loader = partial(loader, cache_dir=cache_dir)
    try:
        return loader(split, Draw(name, split, seed), items, references)
    except DatasetError as error:
        raise DatasetError(f"set {name}, split {split}: {error}") from error


def knowledge_base(name: str) -> KnowledgeBase:
    """What retrieval searches for the items of a set; both splits are in it.

    Raises DatasetError for a set whose references are given, and for a missing or damaged package.
    """
    if name not in _BASES:
        raise DatasetError(f"set {name!r} has no knowledge base; these have one: {', '.join(_BASES)}")
    bank, documents = _BASES[name]
    try:
        return KnowledgeBase(bank, documents())
    except DatasetError as error:
        raise DatasetError(f"knowledge base of {name}: {error}") from error
