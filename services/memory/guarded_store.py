"""An ObjectStore with time limits and a circuit breaker around another one. Knows no vendor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from memory3.errors import BackendUnavailableError
from services.memory.breaker import Breaker
from services.memory.ports import ObjectStore, StoredObject


class GuardedStore:
    """Every call ends in time: with an answer, or with BackendUnavailableError."""

    def __init__(self, inner: ObjectStore, breaker: Breaker, *, read_timeout_s: float, write_timeout_s: float) -> None:
        """`read_timeout_s` bounds get and stat, `write_timeout_s` the others."""
        self._inner = inner
        self._breaker = breaker
        self._read_timeout_s = read_timeout_s
        self._write_timeout_s = write_timeout_s

    async def put_new(self, key: str, data: bytes) -> bool:
        async with self._guard(self._write_timeout_s):
            return await self._inner.put_new(key, data)

    async def replace(self, key: str, data: bytes) -> None:
        async with self._guard(self._write_timeout_s):
            await self._inner.replace(key, data)

    async def get(self, key: str, limit_bytes: int) -> bytes | None:
        async with self._guard(self._read_timeout_s):
            return await self._inner.get(key, limit_bytes)

    async def stat(self, key: str) -> int | None:
        async with self._guard(self._read_timeout_s):
            return await self._inner.stat(key)

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._guard(self._write_timeout_s):
            await self._inner.delete(keys)

    async def list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        async with self._guard(self._write_timeout_s):
            return await self._inner.list(prefix, start_after, limit)

    async def check(self) -> None:
        await self._inner.check()

    async def close(self) -> None:
        await self._inner.close()

    @contextlib.asynccontextmanager
    async def _guard(self, limit_s: float) -> AsyncIterator[None]:
        with self._breaker.watch():
            try:
                async with asyncio.timeout(limit_s):
                    yield
            except TimeoutError as error:
                raise BackendUnavailableError(
                    f"the object store did not answer within {limit_s:g} s; see to it, or raise the time limit"
                ) from error
