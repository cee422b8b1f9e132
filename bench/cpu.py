"""CPU time of processes, as the kernel counts it: other programs on the machine do not change it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def cpu_s(alone: Collection[int], trees: Collection[int]) -> float:
    """Seconds used so far by the processes `alone`, and by those of `trees` with all their descendants that live."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        pid = int(folder.name)
        ticks[pid] = int(fields[11]) + int(fields[12])
        children.setdefault(int(fields[1]), []).append(pid)
    counted, waiting = set(alone), list(trees)
    while waiting:
        pid = waiting.pop()
        counted.add(pid)
        waiting += children.get(pid, [])
    return sum(ticks.get(pid, 0) for pid in counted) / os.sysconf("SC_CLK_TCK")
