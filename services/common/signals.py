"""SIGTERM before a server takes it over: the process ends at once.

The first process of a container gets no signal that it has not asked for, so a start that takes long could not be
stopped otherwise.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_TERMINATED = 128 + signal.SIGTERM
"""Exit code, as a shell gives it."""


def end_at_sigterm() -> None:
    """Call first of all; services.common.server replaces it by a drain."""
    signal.signal(signal.SIGTERM, _end)


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(_TERMINATED)
