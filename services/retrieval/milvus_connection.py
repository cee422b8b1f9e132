"""A connection to Milvus, server or Lite in this process: threads, reconnection, exceptions. The only pymilvus import.

Knows no bank: what is stored is milvus_index.py's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.exceptions import DataNotMatchException, ParamError

from memory3 import semconv
from memory3.errors import BackendUnavailableError, StorageFullError
from memory3.telemetry import client_span
from services.retrieval.certificate_check import refused_certificate
from services.retrieval.milvus_text import without_credentials

T = TypeVar("T")

Client = Any
"""pymilvus' MilvusClient, which has no types."""

KEY = "key"
VECTOR = "vector"
"""Fields that every collection has: the primary key and the vector."""

_CONNECT_SECONDS = 3.0
_CREATE_SECONDS = 60.0
"""A server that has just started needs this to make and load a collection."""

_NO_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1}
"""pymilvus pings every ten seconds; Lite's own server takes that for an attack and breaks the connection off."""

# Milvus' codes: of a collection and of an index not found, of a request that it refuses; new ones and those before 2.3.
_NOT_FOUND = {100, 700}
_LEGACY_NOT_FOUND = {4, 11}
_BAD_PARAMETER = range(1100, 1200)
_LEGACY_BAD_ARGUMENT = 6

# pymilvus logs every failed attempt with a traceback, an unknown collection too; the errors raised here say it better.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
# faiss, below Lite, tells of every processor feature it looks for.
logging.getLogger("faiss").setLevel(logging.WARNING)


class CollectionNotFoundError(Exception):
    """No such collection, or one whose creation was cut short."""


class MilvusConnection:
    """Runs calls to the Milvus at `uri` in threads. Connects when first used, and again after a failure.

    `timeout_s`: longest wait for one answer. `threads`: calls at once on a server; Lite takes one at a time, because
    its writes are not safe beside others. `on_failure` is called, in any thread, when Milvus did not answer: it may
    have been restarted. `ca`: PEM file of the authorities to trust, instead of gRPC's own list.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str,
        ca: Path | None,
        timeout_s: float,
        threads: int,
        on_failure: Callable[[], None],
    ) -> None:
        self.lite = uri.endswith(".db")
        self.timeout_s = timeout_s
        self._uri = str(Path(uri).expanduser().absolute()) if self.lite else uri
        self._token = token
        self._ca = ca
        self._on_failure = on_failure
        self._pool = ThreadPoolExecutor(1 if self.lite else threads, thread_name_prefix="milvus")
        self._connecting = threading.Lock()
        self._client: Client | None = None

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(client, *args)` in a thread, connecting first where needed.

        Raises CollectionNotFoundError, BackendUnavailableError, StorageFullError (Lite only); what Milvus refuses as
        malformed is our fault and raised as it is.
        """
        loop = asyncio.get_running_loop()
        called_ns = time.monotonic_ns()
        attributes = {semconv.ATTR_DB_SYSTEM: "milvus", semconv.ATTR_DB_OPERATION: function.__name__.lstrip("_")}
        if args and isinstance(args[0], str):
            attributes[semconv.ATTR_DB_COLLECTION] = args[0]
        with client_span(semconv.SPAN_MILVUS, attributes) as span:

            def call() -> T:
                span.set_attribute(semconv.ATTR_WAITED, (time.monotonic_ns() - called_ns) / 1e6)
                return self._guarded(function, *args)

            return await loop.run_in_executor(self._pool, call)

    async def close(self) -> None:
        """Close the connection; Milvus Lite gives its files back."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
        await asyncio.to_thread(self._pool.shutdown)
        if self.lite:
            await asyncio.to_thread(self._close_lite)

    def _guarded(self, function: Callable[..., T], *args: object) -> T:
        client: Client | None = None
        try:
            client = self._connected()
            return function(client, *args)
        except MilvusException as error:
            if error.code in _NOT_FOUND or error.compatible_code in _LEGACY_NOT_FOUND:
                raise CollectionNotFoundError(str(error)) from error
            if _is_our_fault(error):
                raise
            # A code of gRPC says that nothing answered, one of Milvus that it could not do it now.
            answered = not isinstance(error.code, grpc.StatusCode)
            if answered and self.lite:
                # Lite forgets what it was about to flush when that fails (a full disk), and its next flush deletes the
                # log that still has it. Opened anew, before that, it reads the log.
                self._close_lite()
            self._fail(error, reconnect=not answered or self.lite)
        except (grpc.RpcError, OSError) as error:
            self._fail(error, reconnect=True)
        except ValueError as error:
            if client is None or client is self._client:
                raise
            self._fail(error, reconnect=False)  # another thread has closed this connection, for it had failed

    def _fail(self, error: Exception, *, reconnect: bool) -> NoReturn:
        """Raise BackendUnavailableError or StorageFullError; the next call begins anew."""
        if reconnect:
            self._disconnect()
        self._on_failure()
        place, remedy = without_credentials(self._uri), "is it running, and are URI and token right?"
        text = str(error.message if isinstance(error, MilvusException) else error) or type(error).__name__
        if self.lite:
            if os.strerror(errno.ENOSPC) in text:
                raise StorageFullError(f"no space left on the disk of the index {self._uri}: free space") from error
            place, remedy = self._uri, "is the folder writable, its disk not full, and no other process using it?"
        elif self._client is None and (refused := refused_certificate(self._uri, self._ca)):
            text, remedy = refused, "is its certificate of that name, and does MEMORY3_RETRIEVAL_MILVUS_CA sign it?"
        raise BackendUnavailableError(
            f"Milvus at {place} does not answer: {' '.join(text.split())[:200]}; {remedy} Calls work once it does",
            retry_after_ms=1_000,
        ) from error

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                if self.lite:
                    Path(self._uri).parent.mkdir(parents=True, exist_ok=True)
                options: dict[str, Any] = {"server_pem_path": str(self._ca)} if self._ca is not None else {}
                if self.lite:
                    options["grpc_options"] = _NO_PINGS
                self._client = MilvusClient(
                    self._uri,
                    token=self._token,
                    timeout=min(_CONNECT_SECONDS, self.timeout_s),
                    dedicated=True,
                    **options,
                )
            return self._client

    def _close_lite(self) -> None:
        """Close the embedded server, which pymilvus keeps, with its lock on the files, until the process ends."""
        # A client of a real server does without the embedded one, so it is not imported at the top.
        from milvus_lite.server_manager import (  # type: ignore[import-untyped]  # noqa: PLC0415
            server_manager_instance,
        )

        server_manager_instance.release_server(self._uri)

    def _disconnect(self) -> None:
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            # It may be broken already; nothing is lost by that.
            with contextlib.suppress(MilvusException, grpc.RpcError, ValueError):
                client.close()


def make_collection(
    client: Client,
    name: str,
    *,
    texts: Mapping[str, int],
    numbers: Sequence[str],
    dimension: int,
    index_type: str,
    properties: Mapping[str, str],
) -> None:
    """Make and load a collection with `key`, `vector` and scalar fields; `texts` with their most bytes of UTF-8.

    Step by step, so that a creation that was cut short is finished by the next. Reads are strong unless they say else.
    """
    if not client.has_collection(name, timeout=_CREATE_SECONDS):
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, most_bytes in texts.items():
            schema.add_field(field, DataType.VARCHAR, max_length=most_bytes, is_primary=field == KEY)
        for field in numbers:
            schema.add_field(field, DataType.INT64)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
        client.create_collection(
            name,
            schema=schema,
            consistency_level="Strong",
            properties=dict(properties),
            timeout=_CREATE_SECONDS,
        )
    if not client.list_indexes(name, VECTOR, timeout=_CREATE_SECONDS):
        index = client.prepare_index_params()
        build = {"M": 16, "efConstruction": 200} if index_type == "HNSW" else {}
        index.add_index(VECTOR, index_type=index_type, metric_type="COSINE", params=build)
        # Not awaited: the collection is empty, and pymilvus would look again only after half a second.
        client.create_index(name, index, sync=False, timeout=_CREATE_SECONDS)
    client.load_collection(name, timeout=_CREATE_SECONDS)


def _is_our_fault(error: MilvusException) -> bool:
    """Whether Milvus refused what we asked, as against not answering."""
    return (
        isinstance(error, (ParamError, DataNotMatchException))
        or error.code in _BAD_PARAMETER
        or error.compatible_code == _LEGACY_BAD_ARGUMENT
    )
