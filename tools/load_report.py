"""What the lines of tests/compose/load.py say about one restart. Knows no container."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

WELL_AGAIN = 4
"""So many answers in a row, each with memories, and the stack counts as well."""

MAY_FAIL = {"ray-head", "ray-worker", "decoder"}
"""While one of these is away a question can fail, with an error that says to try again; no other may."""


def answers(text: str, since: float) -> list[dict[str, Any]]:
    """The answers that ended after `since` (seconds since the epoch), oldest first."""
    lines = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return sorted((line for line in lines if line["at"] > since), key=lambda line: float(line["at"]))


def is_well(seen: Sequence[dict[str, Any]]) -> bool:
    """Whether the newest answers are all good ones."""
    newest = seen[-WELL_AGAIN:]
    return len(newest) == WELL_AGAIN and all(line.get("read") for line in newest)


def summary(name: str, seen: Sequence[dict[str, Any]], began: float) -> dict[str, Any]:
    """Counts of one restart, and what was wrong about it; `began`: seconds since the epoch."""
    failed = [line for line in seen if "error" in line]
    last_bad = max((line["at"] for line in seen if not line.get("read")), default=began)
    final = [line for line in failed if not line["retriable"]]
    wrong = [f"{line['error']}: {line['message']}" for line in (final if name in MAY_FAIL else failed)]
    return {
        "asked": len(seen),
        "failed": dict(Counter(line["error"] for line in failed)),
        "with_fewer_memories": sum("of" in line and line["read"] < max(line["of"], 1) for line in seen),
        "slowest_s": max((line["s"] for line in seen), default=0.0),
        "troubled_s": round(last_bad - began, 1),
        "wrong": sorted(set(wrong)),
    }
