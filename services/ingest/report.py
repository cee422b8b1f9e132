"""What the user sees of a run: a bar on a terminal, lines elsewhere, JSON for scripts. Decides nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from services.ingest.estimate import Estimate
from services.ingest.summary import Failure, Summary

LINE_EVERY_S = 5.0
MAX_SHOWN_FAILURES = 20
KIB = 1024


class Report:
    """Follows one run on stderr; results go to stdout."""

    def __init__(self, *, as_json: bool, limit: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._as_json = as_json
        self._limit = limit
        self._clock = clock
        self._start = self._last_line = clock()
        self._total_bytes = 0
        self._done_bytes = 0
        self._num_failures = 0
        self._bar: Progress | None = None
        if self._console.is_terminal and not as_json:
            self._bar = Progress(
                BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console
            )
            self._task = self._bar.add_task("", total=1.0)

    def say(self, text: str) -> None:
        """One line of news."""
        if not self._as_json:
            self._console.print(escape(text))

    def start(self, total_bytes: int) -> None:
        """The run begins; `total_bytes` of input are ahead."""
        self._total_bytes = total_bytes
        self._start = self._last_line = self._clock()
        if self._bar is not None:
            self._bar.start()

    def note(self, summary: Summary, num_bytes: int, failure: Failure | None) -> None:
        """One input is done."""
        self._done_bytes += num_bytes
        if failure is not None:
            self.note_failure(failure)
        line = self._line(summary)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._fraction(summary), description=line)
        elif not self._as_json and self._clock() - self._last_line >= LINE_EVERY_S:
            self._last_line = self._clock()
            self._console.print(line)

    def note_failure(self, failure: Failure) -> None:
        """One input was not ingested."""
        if self._as_json:
            return
        self._num_failures += 1
        if self._num_failures <= MAX_SHOWN_FAILURES:
            self._console.print(f"[yellow]not ingested[/] {escape(failure.source)}: {escape(failure.reason)}")
        if self._num_failures == MAX_SHOWN_FAILURES:
            self._console.print("[yellow]not ingested[/] more of them are only counted; --json lists all")

    def stop(self) -> None:
        """The run is over; the screen is free again."""
        if self._bar is not None:
            self._bar.stop()

    def _fraction(self, summary: Summary) -> float:
        by_bytes = self._done_bytes / self._total_bytes if self._total_bytes else 0.0
        by_limit = summary.documents / self._limit if self._limit else 0.0
        return min(1.0, max(by_bytes, by_limit))

    def _line(self, summary: Summary) -> str:
        elapsed = max(self._clock() - self._start, 1e-6)
        fraction = self._fraction(summary)
        # Unchanged documents cost next to nothing; counted in, they would make the rest look quick.
        rate = (summary.references - summary.references_unchanged) / elapsed
        left = f", {duration(elapsed * (1 - fraction) / fraction)} left" if fraction > 0 else ""
        return (
            f"{summary.documents} documents, {summary.references} references ({fraction:.0%}), "
            f"{rate:.1f} references/s{left}"
        )


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(num_bytes: int) -> str:
    """Bytes for people."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIB
    return f"{value:.1f} GiB"


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def counted(number: int, noun: str) -> str:
    """The number with its noun."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def print_summary(bank: str, memories: str, summary: Summary, *, as_json: bool) -> None:
    """The end of a run, on stdout."""
    if as_json:
        print_json({"bank": bank, "memories": memories, **dataclasses.asdict(summary)})
        return
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"bank {bank}: {counted(summary.documents, 'document')} with {counted(summary.references, 'reference')} in "
        f"{duration(summary.seconds)} ({summary.documents_unchanged} of them finished before)"
    )
    out.print(
        f"  indexed {counted(summary.references_indexed, 'reference')}, removed {summary.references_removed} outdated"
    )
    if memories == "warm":
        out.print(
            f"  wrote {counted(summary.memories_written, 'memory')} ({size(summary.bytes_written)}), "
            f"{summary.memories_existed} existed; equal references not sent again: {summary.doubles}"
        )
    else:
        out.print("  memories are written when they are first recalled; to write them now: --memories warm")
    if summary.memories_deleted:
        out.print(f"  deleted {counted(summary.memories_deleted, 'memory')} that no document holds any more")
    if summary.documents_empty:
        out.print(f"  left out {counted(summary.documents_empty, 'empty document')}")
    if summary.failures:
        out.print(f"  [red]not ingested: {counted(len(summary.failures), 'input')}[/]; the rest is in the bank")
    if summary.stopped:
        out.print(f"[red]stopped early:[/] {escape(summary.stopped)}")


def print_estimate(bank: str, memories: str, estimate: Estimate) -> None:
    """The end of a dry run, on stdout."""
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"would ingest {estimate.documents} documents into bank {bank}: {estimate.references} references "
        f"({estimate.references_distinct} distinct), {estimate.tokens} tokens"
    )
    if estimate.documents_finished:
        out.print(f"  {estimate.documents_finished} documents are finished already and will be skipped")
    if estimate.bytes_expected is None:
        out.print("  size of their memories: unknown, the decoder does not answer")
    else:
        out.print(f"  size of their memories: {size(estimate.bytes_expected)}")
    source = "as in the last run" if estimate.rate_is_measured else "a guess for two CPU cores; no run was timed yet"
    out.print(
        f"  time to expect, {memories}: {duration(estimate.seconds_expected)} "
        f"({estimate.seconds_per_reference:.3f} s a reference, {source})"
    )
    if estimate.failures:
        out.print(f"  [red]{len(estimate.failures)} inputs cannot be ingested[/]")
