"""ObjectStore on any S3, through obstore. Knows no records; the bucket itself is bucket.py's.

Creating: where the server honours `If-None-Match: *`, of racing creators exactly one is told that it created. Where it
does not (found out by trying, before the first put), an object that is there is left alone, and what was written is
read back: of creators of different bytes that race, the last one stays, and one that is overwritten before it has read
back is told so; readers see one of them whole. Records are verified and named by identity, so none is ever wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from opentelemetry.trace import Span

from memory3 import semconv
from memory3.errors import BackendUnavailableError, Memory3Error, StorageDeniedError, StorageFullError
from memory3.telemetry import client_span
from services.memory.bucket import BucketAdmin, untrusted
from services.memory.config import S3Location
from services.memory.ports import StoredObject, check_key

log = logging.getLogger(__name__)

_FULL_CODES = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity", "StorageFull"}
)
_INSUFFICIENT_STORAGE = "507"
_PIECE_BYTES = 8 * 1024 * 1024


class S3ObjectStore:
    """Objects in one bucket."""

    def __init__(
        self, location: S3Location, access_key: str, secret_key: str, *, timeout_s: float, ca: Path | None = None
    ) -> None:
        """`timeout_s`: longest time of one request, retries included. Without keys, it looks where AWS' SDKs do.

        `ca`: a PEM file of authorities to trust beside the system's.
        """
        limit = datetime.timedelta(seconds=timeout_s)
        keys = {"access_key_id": access_key, "secret_access_key": secret_key} if access_key else {}
        endpoint = {"endpoint": location.endpoint} if location.endpoint else {}
        trusted = {"root_certificate": ca.read_bytes()} if ca is not None else {}
        self._bucket = location.bucket
        self._endpoint = location.endpoint
        self._admin = BucketAdmin(location, access_key, secret_key, timeout_s=timeout_s, ca=ca)
        self._store: Any = S3Store(
            location.bucket,
            region=location.region,
            virtual_hosted_style_request=not location.path_style,
            client_options={
                "allow_http": location.endpoint.startswith("http://"),
                "timeout": limit,
                "connect_timeout": limit,
                **trusted,
            },
            # Breaker and caller decide about waiting; a retry here is for a dropped connection or a busy server.
            retry_config={
                "max_retries": 2,
                "retry_timeout": limit,
                "backoff": {
                    "init_backoff": datetime.timedelta(milliseconds=50),
                    "max_backoff": datetime.timedelta(milliseconds=500),
                    "base": 2,
                },
            },
            **endpoint,
            **keys,
        )
        self._honours_create: bool | None = None
        self._trying = asyncio.Lock()

    async def put_new(self, key: str, data: bytes) -> bool:
        check_key(key)
        async with self._trying:
            if self._honours_create is None:
                self._honours_create = await self._try_create()
        if self._honours_create:
            return await self._create(key, data)
        if await self.stat(key) is not None:
            return False
        await self.replace(key, data)
        return await self.get(key, len(data)) == data

    async def replace(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._calling("PutObject", key) as span:
            span.set_attribute(semconv.ATTR_BYTES, len(data))
            await obstore.put_async(self._store, key, data, use_multipart=False)

    async def get(self, key: str, limit_bytes: int) -> bytes | None:
        check_key(key)
        with self._calling("GetObject", key) as span:
            try:
                answer = await obstore.get_async(self._store, key)
                span.set_attribute(semconv.ATTR_BYTES, answer.meta["size"])
                if answer.meta["size"] > limit_bytes:
                    part = await obstore.get_range_async(self._store, key, start=0, length=limit_bytes + 1)
                    return bytes(part.to_bytes())
                return bytes((await answer.bytes_async()).to_bytes())
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    async def stat(self, key: str) -> int | None:
        check_key(key)
        with self._calling("HeadObject", key):
            try:
                return int((await obstore.head_async(self._store, key))["size"])
            except FileNotFoundError:
                return None

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key)
        if keys:
            with self._calling("DeleteObjects"), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, list(keys))

    async def list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        with self._calling("ListObjectsV2"):
            pages = obstore.list(self._store, prefix or None, offset=start_after or None, chunk_size=limit)
            async for page in pages:
                return [StoredObject(item["path"], item["size"]) for item in page]
        return []

    async def pieces(self, key: str) -> AsyncIterator[bytes]:
        """An object piece by piece, for what is too large for RAM; for jobs, so not part of ObjectStore.

        Its keys need not be ours. Raises as `get`, for an absent object too.
        """
        with self._translated():
            answer = await obstore.get_async(self._store, key)
            async for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)

    async def check(self) -> None:
        await self._admin.ensure()

    async def close(self) -> None:
        """obstore's connections end with the process."""

    async def _create(self, key: str, data: bytes) -> bool:
        with self._calling("PutObject", key) as span:
            span.set_attribute(semconv.ATTR_BYTES, len(data))
            try:
                await obstore.put_async(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    async def _try_create(self) -> bool:
        """Whether creating what is there is refused."""
        key = f"memory3-create-trial-{secrets.token_hex(8)}"
        try:
            await self._create(key, b"1")
            refused = not await self._create(key, b"2")
        finally:
            with contextlib.suppress(Memory3Error):
                await self.delete([key])
        if not refused:
            log.warning("the S3 server ignores If-None-Match: puts are compared by reading back")
        return refused

    @contextlib.contextmanager
    def _calling(self, operation: str, key: str | None = None) -> Iterator[Span]:
        """A client span of one call, named as S3 does; errors translated."""
        attributes = {
            semconv.ATTR_RPC_SYSTEM: "aws-api",
            semconv.ATTR_RPC_METHOD: f"S3/{operation}",
            semconv.ATTR_S3_BUCKET: self._bucket,
            **({semconv.ATTR_S3_KEY: key} if key is not None else {}),
        }
        with client_span(semconv.SPAN_S3, attributes) as span, self._translated():
            yield span

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BackendUnavailableError(f"bucket {self._bucket!r}: {_summary(error)}; does it exist?") from error
        except BaseError as error:
            if refused := re.search(r"\bInvalidCertificate\(\s*(\w+)", str(error)):
                raise untrusted(self._endpoint or f"bucket {self._bucket!r}", refused[1]) from error
            what = f"bucket {self._bucket!r}: {_summary(error)}"
            if _code(error) in _FULL_CODES or _status(error) == _INSUFFICIENT_STORAGE:
                raise StorageFullError(f"{what}; free space, raise the quota, or delete banks") from error
            if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or _code(error) == "AccessDenied":
                raise StorageDeniedError(f"{what}; check the keys and their rights") from error
            raise BackendUnavailableError(what) from error

    def _check_bucket(self, error: FileNotFoundError) -> None:
        if _code(error) == "NoSuchBucket":
            raise BackendUnavailableError(f"bucket {self._bucket!r} does not exist") from error


def _code(error: Exception) -> str:
    """The S3 error code of the server's answer, if obstore passes it on; it has no attribute for it."""
    match = re.search(r"<Code>(\w+)</Code>|\(code: (\w+)\)", str(error))  # the second: one key of a bulk delete
    return match[match.lastindex or 0] if match else ""


def _status(error: Exception) -> str:
    """The HTTP status of the server's answer, likewise."""
    match = re.search(r"status code: (\d{3})", str(error))
    return match.group(1) if match else ""


def _summary(error: Exception) -> str:
    """What happened, without obstore's pages of debug output."""
    return _code(error) or str(error).partition("\n")[0][:300]
