"""What the memory tier needs of its backend: an object store. Knows no vendor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def check_key(key: str) -> None:
    """Raises ValueError unless `key` is parts of A-Z a-z 0-9 _ - . joined by "/", none of them beginning with a dot."""
    if not all(_PART.fullmatch(part) for part in key.split("/")):
        raise ValueError(f"object key {key[:200]!r} has a part that is not of A-Z a-z 0-9 _ - . or begins with a dot")


@dataclass(frozen=True, order=True)
class StoredObject:
    """One object of a listing."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """Immutable objects by key.

    Keys must pass `check_key`.
    Every method may raise BackendUnavailableError (refused, no answer, unreadable) and StorageDeniedError.
    Reads see an object whole or not at all, and see every put and delete that has returned.
    """

    async def put_new(self, key: str, data: bytes) -> bool:
        """Create the object, durably, if there is none; False leaves the one that is there. Raises StorageFullError."""

    async def replace(self, key: str, data: bytes) -> None:
        """Put `data` in the place of whatever is there, in one step, durably. Raises StorageFullError."""

    async def get(self, key: str, limit_bytes: int) -> bytes | None:
        """The object, or None. Of one that is longer than the limit only the first `limit_bytes + 1` bytes."""

    async def stat(self, key: str) -> int | None:
        """Size in bytes, or None."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove these objects; absent ones are no error."""

    async def list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        """At most `limit` objects whose keys begin with `prefix` and come after `start_after`, in key order.

        `prefix` is empty or ends in "/".
        """

    async def check(self) -> None:
        """Return when the store can be read, making what it needs to exist; raise what is wrong otherwise."""

    async def close(self) -> None:
        """Let go of threads and connections."""
