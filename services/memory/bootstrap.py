"""`python -m services.memory.bootstrap`: make the bucket, and prove that it can be written, read and cleaned.

A job for the time before the first record; the service itself needs it only where it may not make buckets.
"""

from __future__ import annotations

import asyncio
import secrets

from memory3.errors import StorageDeniedError
from services.common import bootstrap, logs
from services.common.config import load
from services.common.signals import end_at_sigterm
from services.memory.__main__ import make_store
from services.memory.config import MemorySettings
from services.memory.ports import ObjectStore


async def prove(store: ObjectStore) -> None:
    """Put, read and delete one object. Raises StorageDeniedError or BackendUnavailableError."""
    await store.check()
    key = f"memory3-bootstrap-trial-{secrets.token_hex(8)}"
    await store.put_new(key, b"trial")
    if await store.get(key, 16) != b"trial":
        raise StorageDeniedError("an object that was just put reads otherwise; the keys must allow GetObject")
    await store.delete([key])


async def run(settings: MemorySettings) -> None:
    """Wait for the store, then close it."""
    store = make_store(settings, settings.location)
    try:
        await bootstrap.wait_for(f"the store {settings.store_uri}", lambda: prove(store), settings.bootstrap_seconds)
    finally:
        await store.close()


def main() -> None:
    """Entry point."""
    end_at_sigterm()
    settings = load(MemorySettings)
    logs.start("memory-bootstrap", settings.log_level)
    try:
        asyncio.run(run(settings))
    except ValueError as error:
        raise SystemExit(f"MEMORY3_MEMORY_STORE_URI {error}") from error


if __name__ == "__main__":
    main()
