"""A request's timeline as bars in the terminal's width. Knows no command and no tracing backend."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from memory3.cli.output import milliseconds, printable
from memory3.types import TimelineEntry

_COLOURS = {"decoder": "blue", "decoder-worker": "cyan", "retrieval": "green", "memory": "magenta"}
_MIN_BAR = 10
_TIME_WIDTH = 10


class Waterfall:
    """One line an entry: name indented by depth, service, bar, milliseconds. Entries in the order of the timeline."""

    def __init__(self, timeline: Sequence[TimelineEntry]) -> None:
        self._timeline = timeline

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        entries = self._timeline
        names = ["  " * depth + printable(entry.name) for entry, depth in zip(entries, depths(entries), strict=True)]
        services = [printable(entry.service) for entry in entries]
        name_width = max((len(name) for name in names), default=0)
        service_width = max((len(service) for service in services), default=0)
        bar_width = max(_MIN_BAR, options.max_width - name_width - service_width - _TIME_WIDTH - 4)
        end_ns = max((entry.start_ns + entry.duration_ns for entry in entries), default=0)
        block = "#" if options.ascii_only else "█"
        for entry, name, service in zip(entries, names, services, strict=True):
            start, length = bar(entry, end_ns, bar_width)
            line = Text(no_wrap=True, overflow="crop")
            line.append(f"{name:<{name_width}}  ")
            line.append(f"{service:<{service_width}}  ", style="dim")
            line.append(" " * start)
            line.append(block * length, style=_COLOURS.get(entry.service, "yellow"))
            line.append(" " * (bar_width - start - length))
            line.append(f"{milliseconds(entry.duration_ns) + ' ms':>{_TIME_WIDTH}}")
            yield line


def depths(timeline: Sequence[TimelineEntry]) -> list[int]:
    """How deep each entry is nested; a parent that does not stand before its child counts as none."""
    found: list[int] = []
    for index, entry in enumerate(timeline):
        known = entry.parent is not None and 0 <= entry.parent < index
        found.append(found[entry.parent] + 1 if known and entry.parent is not None else 0)
    return found


def bar(entry: TimelineEntry, end_ns: int, width: int) -> tuple[int, int]:
    """First column and length of an entry's bar: at least one column, never beyond the width."""
    if end_ns <= 0:
        return 0, 1
    start = min(width - 1, entry.start_ns * width // end_ns)
    return start, max(1, min(width - start, round(entry.duration_ns * width / end_ns)))
