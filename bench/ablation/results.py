"""Results of an ablation as lines of a JSONL file: a run that was killed goes on where it was.

One line describes the subject (which weights, which default plan, which sample); every other is one cell: one
variation, or one baseline, on all items of one set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

BASELINES = ("none", "rag", "memory-wrong")
"""Cells beside the variations: no references; the default plan's references as text; another item's memories."""


@dataclass(frozen=True)
class Subject:
    """What was varied: weights under a default plan, on a sample of items."""

    name: str
    """For people: "untrained", or the adapter's folder."""
    weights: str
    """Fingerprint of weights, adapter included, tokenizer, default plan and number format."""
    plan: str
    """The default plan, as JSON."""
    num_layers: int
    items: int
    seed: int
    heading: str
    """Date and machine of its first run."""

    @property
    def key(self) -> str:
        """Equal for runs whose cells may stand beside each other."""
        return json.dumps([self.weights, self.plan, self.items, self.seed])


@dataclass(frozen=True)
class Cell:
    """One figure of each item."""

    subject: str
    """Key of the subject."""
    set_name: str
    key: str
    """A variation's key, or one of BASELINES."""
    nll: list[float]
    """Of each item: negative log-likelihood of a token of its answer; nats."""
    greedy: list[bool]
    """Of each item: whether greedy generation gives the answer."""
    seconds: float = 0.0
    sample: str = ""
    """Digest of the items: a set that was changed is measured anew."""
    heading: str = ""
    """Date and machine; "" where it is the subject's."""

    @property
    def mean(self) -> float:
        """NLL over items."""
        return fmean(self.nll)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return _error(self.nll)

    def beyond(self, other: Cell) -> tuple[float, float]:
        """How much more NLL than `other`, item by item, and the standard error of that."""
        differences = [mine - its for mine, its in zip(self.nll, other.nll, strict=True)]
        return fmean(differences), _error(differences)


def closed(cell: Cell, none: Cell, rag: Cell) -> tuple[float, float]:
    """Share of the gap from no references to references as text that `cell` closes, and its standard error.

    The error is that of a ratio of two paired means (delta method).
    """
    gained = [nothing - it for nothing, it in zip(none.nll, cell.nll, strict=True)]
    gap = [nothing - text for nothing, text in zip(none.nll, rag.nll, strict=True)]
    share = fmean(gained) / fmean(gap)
    rest = [gain - share * whole for gain, whole in zip(gained, gap, strict=True)]
    return share, _error(rest) / abs(fmean(gap))


def _error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


@dataclass
class Results:
    """The file, read once and appended to."""

    path: Path
    subjects: dict[str, Subject] = field(default_factory=dict)
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    """By subject, set and key."""

    @classmethod
    def read(cls, path: Path) -> Results:
        """What is in the file; a last line that was cut off by a kill is left out and overwritten."""
        results = cls(path)
        if not path.exists():
            return results
        sound = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                sound += len(line)
                results._take(value)
        with path.open("r+b") as file:
            file.truncate(sound)
        return results

    def add(self, entry: Subject | Cell) -> None:
        """Append and keep; a subject that is known is not written again."""
        if isinstance(entry, Subject) and entry.key in self.subjects:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        value = {"kind": type(entry).__name__.lower(), **asdict(entry)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
        self._take(value)

    def has(self, subject: Subject, set_name: str, key: str, sample: str) -> bool:
        """Whether this cell is measured already, on these items."""
        cell = self.cells.get((subject.key, set_name, key))
        return cell is not None and cell.sample == sample

    def cell(self, subject: Subject, set_name: str, key: str) -> Cell | None:
        """The cell, if it is measured on the same items as the set's baseline."""
        cell, baseline = (self.cells.get((subject.key, set_name, name)) for name in (key, "none"))
        return cell if cell is None or baseline is None or cell.sample == baseline.sample else None

    def sets(self, subject: Subject) -> tuple[str, ...]:
        """Sets of which this subject has cells, in the order of measuring."""
        return tuple(dict.fromkeys(name for key, name, _ in self.cells if key == subject.key))

    def headings(self, subject: Subject) -> dict[str, tuple[str, ...]]:
        """Set -> dates and machines of its cells, where they are not the subject's."""
        found: dict[str, dict[str, None]] = {}
        for (key, name, _), cell in self.cells.items():
            if key == subject.key and cell.heading not in {"", subject.heading}:
                found.setdefault(name, {})[cell.heading] = None
        return {name: tuple(headings) for name, headings in found.items()}

    def _take(self, value: dict[str, Any]) -> None:
        kind = value.pop("kind")
        if kind == "subject":
            subject = Subject(**value)
            self.subjects[subject.key] = subject
        else:
            cell = Cell(**value)
            self.cells[cell.subject, cell.set_name, cell.key] = cell
