"""How far an evaluation is, on stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Screen:
    """Follows one evaluation. A context manager."""

    def __init__(self, total: int, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`total` items times modes; `quiet`: no lines where there is no terminal."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._total, self._quiet, self._clock = total, quiet, clock
        self._start = self._last_line = clock()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("answers", total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def done(self, count: int) -> None:
        """So many are measured."""
        elapsed = max(self._clock() - self._start, 1e-6)
        rate = count / elapsed
        if self._bar is not None:
            self._bar.update(self._task, completed=count, description=f"answers, {rate:.1f}/s")
        elif not self._quiet and self._clock() - self._last_line >= LINE_EVERY_S:
            self._last_line = self._clock()
            left = (self._total - count) / rate
            self._console.print(f"{count} of {self._total} answers, {rate:.1f}/s, {left:.0f} s left")
