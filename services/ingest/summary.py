"""What a run did, counted as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """One input that was not ingested, and why."""

    source: str
    reason: str


@dataclass
class Summary:
    """What a run did. `documents_unchanged`: finished before, nothing was sent."""

    documents: int = 0
    documents_unchanged: int = 0
    documents_empty: int = 0
    references: int = 0
    references_unchanged: int = 0
    references_indexed: int = 0
    references_removed: int = 0
    memories_written: int = 0
    memories_existed: int = 0
    memories_deleted: int = 0
    bytes_written: int = 0
    doubles: int = 0
    seconds: float = 0.0
    stopped: str = ""
    failures: list[Failure] = field(default_factory=list)
