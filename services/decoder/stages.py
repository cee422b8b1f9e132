"""What took how long in one generation, as a tree; and the tree as the timeline of the final event.

Times are nanoseconds of the process's monotonic clock; the timeline counts from a given arrival.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from memory3.types import TimelineEntry


@dataclass(frozen=True)
class Stage:
    """One stage and the stages it consists of; named like the spans."""

    name: str
    service: str
    start_ns: int
    end_ns: int
    children: tuple[Stage, ...] = ()

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return max(0, self.end_ns - self.start_ns)


def total_ns(stages: Iterable[Stage], name: str) -> int:
    """Time of all stages of that name, at any depth."""
    return sum((stage.duration_ns if stage.name == name else 0) + total_ns(stage.children, name) for stage in stages)


def timeline(root: Stage, arrival_ns: int) -> list[TimelineEntry]:
    """The tree as a list: the root first, parents before children, siblings by start."""
    entries: list[TimelineEntry] = []
    _append(entries, root, None, arrival_ns)
    return entries


def _append(entries: list[TimelineEntry], stage: Stage, parent: int | None, arrival_ns: int) -> None:
    index = len(entries)
    start_ns = max(0, stage.start_ns - arrival_ns)
    entries.append(TimelineEntry(stage.name, stage.service, parent, start_ns, stage.duration_ns))
    for child in sorted(stage.children, key=lambda child: child.start_ns):
        _append(entries, child, index, arrival_ns)


def under(root: TimelineEntry, start_ns: int, entries: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    """A timeline that a worker made, as a subtree of `root`: its zero is `start_ns` of the root's clock."""
    moved = [
        replace(entry, parent=0 if entry.parent is None else entry.parent + 1, start_ns=entry.start_ns + start_ns)
        for entry in entries
    ]
    return [root, *moved]


def wall_ns(monotonic_ns: int) -> int:
    """A time of the monotonic clock as one of the wall clock, which OpenTelemetry wants."""
    return time.time_ns() - time.monotonic_ns() + monotonic_ns
