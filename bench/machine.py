"""What stands over every table: machine, date, versions, load. Figures without it mean nothing."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

from services.common.processor import cpu_model


def heading() -> str:
    """One line: date, processor, cores, memory, load, versions."""
    total = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC · {cpu_model()} · {os.cpu_count()} cores · "
        f"{total / 2**20:.0f} GiB · load {load} · Python {platform.python_version()} · torch {version('torch')}"
    )
