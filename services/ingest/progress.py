"""What a run has finished, in a file that survives a kill: SQLite with every commit on disk.

Keyed by bank, document, version and stage. It remembers what the tiers acknowledged; whether they still hold it is
for reconcile.py to ask. Calls block for the length of a disk write: call them in a thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

INDEXED = "indexed"
"""Stage: all references of the document are in the index."""


def written(model_fingerprint: str) -> str:
    """Stage: all references of the document have a memory of this model."""
    return f"written:{model_fingerprint}"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS finished (
    bank TEXT NOT NULL, document_id TEXT NOT NULL, version TEXT NOT NULL, stage TEXT NOT NULL,
    reference_ids BLOB NOT NULL, finished_at REAL NOT NULL,
    PRIMARY KEY (bank, document_id, version, stage)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (
    bank TEXT NOT NULL, document_id TEXT NOT NULL, reason TEXT NOT NULL, failed_at REAL NOT NULL,
    PRIMARY KEY (bank, document_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphans (
    bank TEXT NOT NULL, reference_id TEXT NOT NULL, PRIMARY KEY (bank, reference_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rates (kind TEXT PRIMARY KEY, seconds_per_reference REAL NOT NULL) WITHOUT ROWID;
"""
_ID_BYTES = 16


class ProgressError(Exception):
    """The progress file cannot be used; the message says why and what to do."""


class Progress:
    """The progress file. One object may be used from several threads, several processes may share the file.

    Every method raises ProgressError if the file cannot be read or written (a full disk).
    """

    def __init__(self, path: Path) -> None:
        """Raises ProgressError if the file cannot be made, or is no progress file."""
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file; a call still under way in another thread ends first."""
        with self._lock:
            self._db.close()

    def finish(
        self,
        bank: str,
        document_id: str,
        version: str,
        stage: str,
        *,
        reference_ids: Sequence[str],
        orphans: Sequence[str] = (),
    ) -> None:
        """Remember that a stage is done; other versions of the document are forgotten. Durable on return."""
        ids = b"".join(bytes.fromhex(reference_id) for reference_id in reference_ids)
        with self._transaction() as db:
            db.execute(
                "DELETE FROM finished WHERE bank=? AND document_id=? AND version<>?", (bank, document_id, version)
            )
            db.execute("DELETE FROM failed WHERE bank=? AND document_id=?", (bank, document_id))
            db.execute(
                "INSERT OR REPLACE INTO finished VALUES (?,?,?,?,?,?)",
                (bank, document_id, version, stage, ids, time.time()),
            )
            db.executemany("INSERT OR IGNORE INTO orphans VALUES (?,?)", [(bank, orphan) for orphan in orphans])

    def fail(self, bank: str, document_id: str, reason: str) -> None:
        """Remember why a document could not be ingested."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO failed VALUES (?,?,?,?)", (bank, document_id, reason, time.time()))

    def stages(self, bank: str, document_id: str, version: str) -> set[str]:
        """The stages this version of the document has behind it."""
        rows = self._rows(
            "SELECT stage FROM finished WHERE bank=? AND document_id=? AND version=?", bank, document_id, version
        )
        return {stage for (stage,) in rows}

    def forget(self, bank: str, stage: str, document_ids: Iterable[str]) -> None:
        """Drop a stage of documents, whatever their version: the tier denies it."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM finished WHERE bank=? AND stage=? AND document_id=?",
                [(bank, stage, document_id) for document_id in document_ids],
            )

    def versions(self, bank: str, stage: str) -> dict[str, str]:
        """Document id -> version of all documents that have a stage behind them."""
        return dict(self._rows("SELECT document_id, version FROM finished WHERE bank=? AND stage=?", bank, stage))

    def references(self, bank: str, stage: str) -> Iterator[tuple[str, list[str]]]:
        """(document id, its reference ids) of all documents that have a stage behind them."""
        last = ""
        while True:
            rows = self._rows(
                "SELECT document_id, reference_ids FROM finished WHERE bank=? AND stage=? AND document_id>? "
                "ORDER BY document_id LIMIT 1000",
                bank, stage, last,
            )  # fmt: skip
            for document_id, ids in rows:
                yield document_id, [ids[at : at + _ID_BYTES].hex() for at in range(0, len(ids), _ID_BYTES)]
                last = document_id
            if not rows:
                return

    def orphans(self, bank: str) -> list[str]:
        """References whose memories are still to be deleted."""
        return [orphan for (orphan,) in self._rows("SELECT reference_id FROM orphans WHERE bank=?", bank)]

    def drop_orphans(self, bank: str, reference_ids: Sequence[str]) -> None:
        """Their memories are deleted, or a document holds them again."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM orphans WHERE bank=? AND reference_id=?", [(bank, orphan) for orphan in reference_ids]
            )

    def rate(self, kind: str) -> float | None:
        """Seconds a reference took in the last run of a kind ("cold", "warm"); None if there was none."""
        rows = self._rows("SELECT seconds_per_reference FROM rates WHERE kind=?", kind)
        return float(rows[0][0]) if rows else None

    def set_rate(self, kind: str, seconds_per_reference: float) -> None:
        """Remember how fast this run was."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO rates VALUES (?,?)", (kind, seconds_per_reference))

    def _rows(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself has ended it if the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """What the file does, as our error; a statement of ours that is wrong stays what it is."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ProgressError:
        return ProgressError(
            f"cannot use the progress file {self._path}: {error}; make room, make the folder writable, or set "
            "MEMORY3_INGEST_DATA_DIR to another one"
        )
