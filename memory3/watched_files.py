"""A value made from files, and made anew when they change: certificates and tokens are renewed without a restart.

Knows neither. Files are looked at when the value is asked for, so there is no thread and no timer; a look costs some
microseconds. Mounted secrets, whose folder is swapped by a link, are followed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles(Generic[T]):
    """What `read` makes of the files; safe to ask from any thread."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Reads at once and raises what `read` raises (ValueError or OSError). Later failures keep the value."""
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._value = read()

    def current(self) -> T:
        """The value of the files as they are; the object is the same as before while they have not changed.

        Files that cannot be used (half written, expired) are logged once, and the value of before goes on.
        """
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                # Taken before the reading: what is written meanwhile is seen by the next look.
                self._stamp = stamp
                try:
                    self._value = self._read()
                except (ValueError, OSError) as error:
                    log.error("%s; what was read before goes on", error)
                else:
                    log.info("read again, for it has changed: %s", ", ".join(map(str, self._paths)))
            return self._value

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file. Raises ValueError that says what it should be and why it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{what} {path} cannot be read: {error.strerror}; name a file this process may read"
        ) from error
    if not data.strip():
        raise ValueError(f"{what} {path} is empty; put it there, or leave the setting out")
    return data
