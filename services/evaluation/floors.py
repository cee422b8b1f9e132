"""What the shipped checkpoint must not fall below: recorded figures of fixed items, with what they may lose.

Knows no model: it compares reports with a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.datasets.item import Item
from services.evaluation.figures import Figures
from services.evaluation.modes import Mode

FLOORS = Path(__file__).with_name("floors.json")

_MARGIN_NLL = 0.02
"""Share of an NLL, and of a nat, that it may lose: what number formats and processors move it by, and some more."""
_MARGIN_SHARE = 0.03
_SHARES = ("gap_closed", "choice_accuracy")
"""Figures that are better the larger they are; `nll` the other way round."""


@dataclass(frozen=True)
class Slice:
    """Items of one set that are measured every time."""

    set: str
    items: int
    seed: int
    modes: tuple[Mode, ...]


_READ = (Mode.NONE, Mode.RAG, Mode.MEMORY, Mode.MEMORY_WRONG)
SLICES: Mapping[str, tuple[Slice, ...]] = {
    # A minute of CI.
    "ci": (Slice("fiction", 8, 1, _READ),),
    # Ten minutes of two cores at most.
    "full": (
        Slice("fiction", 48, 1, _READ),
        Slice("halueval", 24, 1, _READ),
        Slice("halueval-choice", 24, 1, (Mode.NONE, Mode.RAG, Mode.MEMORY)),
        Slice("continuation", 16, 1, _READ),
        Slice("phenotypes", 24, 1, (Mode.NONE, Mode.RAG, Mode.MEMORY)),
    ),
}


@dataclass(frozen=True)
class Check:
    """One figure beside its limit."""

    set: str
    mode: str
    figure: str
    value: float | None
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the figure is no worse than the limit; one that could not be measured is worse."""
        if self.value is None:
            return False
        is_better_large = self.figure in _SHARES and self.mode != Mode.MEMORY_WRONG
        return self.value >= self.limit if is_better_large else self.value <= self.limit


def items_digest(items: Sequence[Item]) -> str:
    """A hash of what is asked: other items have other figures."""
    asked = [dataclasses.asdict(item) for item in items]
    for values in asked:
        for name in ("preceding", "wrong_preceding"):
            if not values[name]:
                del values[name]  # items from before there were these keep their digest
    content = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def record(figures: Mapping[Mode, Figures], digest: str) -> dict[str, Any]:
    """The floors of one slice: every figure with its margin taken off."""
    floors = {mode.value: _limits(mode, row) for mode, row in figures.items()}
    return {"items_digest": digest, "floors": floors}


def _limits(mode: Mode, row: Figures) -> dict[str, float]:
    limits = {}
    if mode is Mode.MEMORY_WRONG:
        # Wrong memories have nothing to give: what they bring, as such, must not grow.
        if row.gap_closed is not None:
            limits["gap_closed"] = row.gap_closed + _MARGIN_SHARE
    else:
        limits["nll"] = row.nll + _MARGIN_NLL * (1 + row.nll)
        # None and rag are 0 and 1 by what the gap means.
        if row.gap_closed is not None and mode not in (Mode.NONE, Mode.RAG):
            limits["gap_closed"] = row.gap_closed - _MARGIN_SHARE
        if row.choice_accuracy is not None:
            limits["choice_accuracy"] = row.choice_accuracy - _MARGIN_SHARE
    return {name: round(limit, 4) for name, limit in limits.items()}


def compare(name: str, figures: Mapping[Mode, Figures], recorded: Mapping[str, Any]) -> list[Check]:
    """Every recorded floor beside what was measured now."""
    return [
        Check(name, mode, figure, getattr(figures[Mode(mode)], figure), limit)
        for mode, limits in recorded["floors"].items()
        for figure, limit in limits.items()
    ]
