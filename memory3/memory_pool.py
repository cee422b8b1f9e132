"""MemoryPool: a MemoryClient over all pods of the memory tier, each asked for its own keys, so that their RAM adds up.

`rendezvous:host:port` names it: every address of that host name is one pod (in Kubernetes, a headless service). Knows
no record's inside, and nothing of who else shares the keys out: all who see the same addresses do it alike.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import grpc

from memory3.errors import (
    DETAILS_KEY,
    BackendUnavailableError,
    CancelledCallError,
    DeadlineExceededError,
    Memory3Error,
)
from memory3.memory import MemoryClient
from memory3.rendezvous import ranked
from memory3.security import PLAIN, ChannelSecurity
from memory3.types import FetchedRecord, MemoryEntry, MemoryStat

PREFIX = "rendezvous:"
"""Before host:port in an address: share keys out over all addresses of the host."""

_REFRESH_S = 5.0
"""How old the list of pods may be; seconds."""
_GONE_S = 2.0
"""How long a pod that could not be reached is not asked first; seconds."""
_SILENT_S = 10.0
"""How long, when it took a call and let its deadline pass; seconds."""

_IDS_PER_FETCH = 1024
"""Limit of MemoryService.BatchGet, for the whole call: one pod is left to refuse what is more."""

_READ_AHEAD = 16
"""Records of one fetch that wait here for their reader."""

T = TypeVar("T")
Resolve = Callable[[str, int], Awaitable[Collection[str]]]
"""Addresses ("host:port") of a host name. Raises OSError."""


def open_memory(target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> MemoryClient:
    """The client for an address: a MemoryPool for `rendezvous:host:port`, else a plain MemoryClient."""
    if target.startswith(PREFIX):
        return MemoryPool(target.removeprefix(PREFIX), retry=retry, security=security)
    return MemoryClient(target, retry=retry, security=security)


async def resolve(host: str, port: int) -> Collection[str]:
    """Every address the name has now."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {
        f"[{where[0]}]:{port}" if family == socket.AF_INET6 else f"{where[0]}:{port}" for family, *_, where in found
    }


@dataclasses.dataclass
class _Pod:
    """One pod: its client, the calls that use it, and until when it is asked last."""

    address: str
    client: MemoryClient
    calls: int = 0
    away_until: float = 0.0
    left: bool = False
    """The name has no such address any more; closed when its last call ends."""


class MemoryPool(MemoryClient):
    """As MemoryClient. A pod that is away is stood in for by the next in rank, for each of its keys another one.

    What a pod itself answers, errors too, is its answer: only one that cannot be reached is replaced.
    """

    def __init__(
        self,
        target: str,
        *,
        retry: bool = True,
        security: ChannelSecurity = PLAIN,
        resolve: Resolve = resolve,
        refresh_s: float = _REFRESH_S,
    ) -> None:
        """`target`: host:port, without the prefix; health checks ask any one of its pods."""
        super().__init__(target, retry=retry, security=security)
        host, _, port = target.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._retry = retry
        # Pods are called by address; their certificate has the name.
        self._security = (
            dataclasses.replace(security, server_name=security.server_name or host) if security.ca else security
        )
        self._resolve = resolve
        self._refresh_s = refresh_s
        self._pods: dict[str, _Pod] = {}
        self._fresh_until = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def put(
        self, bank: str, reference_id: str, model_fingerprint: str, record: bytes, *, timeout: float = 30.0
    ) -> bool:
        """See MemoryClient; sent to the owner of the key, which so sees all creators of it."""
        return await self._first(
            reference_id,
            timeout,
            lambda client, left: client.put(bank, reference_id, model_fingerprint, record, timeout=left),
        )

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float = 10.0
    ) -> Sequence[MemoryStat]:
        """See MemoryClient. The store answers, so any pod may be asked."""
        return await self._first(
            reference_ids[0] if reference_ids else bank,
            timeout,
            lambda client, left: client.stat(bank, model_fingerprint, reference_ids, timeout=left),
        )

    async def delete(
        self,
        bank: str,
        reference_ids: Sequence[str] = (),
        *,
        model_fingerprint: str | None = None,
        whole_bank: bool = False,
        timeout: float = 120.0,
    ) -> int:
        """See MemoryClient. Every pod is told, so that none answers from its RAM what is deleted."""
        until = _now() + timeout
        total, reached, gone = 0, False, None
        for pod in await self.order(bank):
            try:
                async with _Use(self, pod) as client:
                    total += await client.delete(
                        bank,
                        reference_ids,
                        model_fingerprint=model_fingerprint,
                        whole_bank=whole_bank,
                        timeout=max(0.0, until - _now()),
                    )
                reached = True
            except Memory3Error as error:
                if not self.is_gone(pod, error):
                    raise
                gone = error
        if not reached:
            raise gone or self._nobody()
        return total

    async def list(
        self, bank: str, model_fingerprint: str | None = None, *, page_size: int = 1000, timeout: float = 30.0
    ) -> AsyncGenerator[MemoryEntry, None]:
        """See MemoryClient; one pod lists all, for the store is theirs together."""
        pods = await self.order(bank)
        if not pods:
            raise self._nobody()
        async with _Use(self, pods[0]) as client:
            async for entry in client.list(bank, model_fingerprint, page_size=page_size, timeout=timeout):
                yield entry

    async def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float = 30.0
    ) -> AsyncGenerator[FetchedRecord, None]:
        """See MemoryClient. An error of one pod is raised after all that the others had."""
        fetch = _Fetch(self, bank, model_fingerprint, _now() + timeout)
        pods = await self.order(bank)
        if not pods:
            raise self._nobody()
        try:
            if 0 < len(reference_ids) <= _IDS_PER_FETCH:
                fetch.spread(dict.fromkeys(reference_ids), frozenset(), pods)
            else:
                fetch.begin(pods[0], reference_ids, frozenset())
            async for item in fetch.items():
                yield item
        finally:
            await fetch.cancel()

    async def close(self) -> None:
        """Close all channels; calls under way are cancelled."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(
            *self._closing, *(pod.client.close() for pod in self._pods.values()), return_exceptions=True
        )
        await super().close()

    async def _first(self, key: str, timeout: float, call: Callable[[MemoryClient, float], Awaitable[T]]) -> T:
        """The answer of the first pod in rank that can be reached."""
        until = _now() + timeout
        gone: Memory3Error | None = None
        for pod in self.ranked(key, await self.order(key)):
            try:
                async with _Use(self, pod) as client:
                    return await call(client, max(0.0, until - _now()))
            except Memory3Error as error:
                if not self.is_gone(pod, error):
                    raise
                gone = error
        raise gone or self._nobody()

    async def order(self, key: str) -> Sequence[_Pod]:
        """All pods by their rank for `key`; looks for them anew when the list is old."""
        if not self._pods:
            await self._refresh()
        elif _now() > self._fresh_until:
            self._refresh_soon()
        return self.ranked(key, self._pods.values())

    def ranked(self, key: str, pods: Collection[_Pod]) -> Sequence[_Pod]:
        """By rank; those that are away last, so that each of their keys goes to the next that has a right to it."""
        by_address = {pod.address: pod for pod in pods}
        now = _now()
        order = [by_address[address] for address in ranked(key, by_address)]
        return sorted(order, key=lambda pod: pod.away_until > now)

    def is_gone(self, pod: _Pod, error: Memory3Error) -> bool:
        """Whether the pod itself could not be reached, as against an answer it gave; notes it."""
        cause = error.__cause__
        if not isinstance(cause, grpc.aio.AioRpcError) or _has_details(cause):
            return False
        if isinstance(error, DeadlineExceededError):
            pod.away_until = _now() + _SILENT_S
            return False  # no time is left for another
        if isinstance(error, (BackendUnavailableError, CancelledCallError)):
            pod.away_until = _now() + _GONE_S
            self._refresh_soon()
            return True
        return False

    def _nobody(self) -> BackendUnavailableError:
        return BackendUnavailableError(f"{self._host} has no address; is the memory tier running, and the name right?")

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Take the addresses the name has now. An answer that fails or is empty changes nothing."""
        self._fresh_until = _now() + self._refresh_s
        try:
            addresses = set(await self._resolve(self._host, self._port))
        except OSError:
            return
        for address in addresses - self._pods.keys():
            client = MemoryClient(address, retry=self._retry, security=self._security)
            self._pods[address] = _Pod(address, client)
        for address in self._pods.keys() - addresses if addresses else ():
            pod = self._pods.pop(address)
            pod.left = True
            if not pod.calls:
                self.let_go(pod)

    def let_go(self, pod: _Pod) -> None:
        """Close a pod that left and that no call uses any more."""
        task = asyncio.create_task(pod.client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Fetch:
    """One batch_get: a stream from each pod, items as they come, the share of a pod that is away asked of others."""

    def __init__(self, pool: MemoryPool, bank: str, model_fingerprint: str, until: float) -> None:
        self._pool = pool
        self._bank, self._model_fingerprint, self._until = bank, model_fingerprint, until
        # Bounded: a reader that stalls must hold the pods up, not pile records here. None: a stream has ended.
        self._arrived: asyncio.Queue[FetchedRecord | None] = asyncio.Queue(_READ_AHEAD)
        self._streams: set[asyncio.Task[None]] = set()
        self._num_open = 0
        self._failures: list[Exception] = []

    def spread(self, ids: Collection[str], tried: frozenset[str], pods: Collection[_Pod]) -> None:
        """Ask each pod for the ids that are its own among these pods."""
        by_address = {pod.address: pod for pod in pods}
        shares: dict[str, list[str]] = defaultdict(list)
        for reference_id in ids:
            shares[self._pool.ranked(reference_id, pods)[0].address].append(reference_id)
        for address, share in shares.items():
            self.begin(by_address[address], share, tried)

    def begin(self, pod: _Pod, ids: Collection[str], tried: frozenset[str]) -> None:
        """Ask one pod."""
        stream = asyncio.create_task(self._stream(pod, ids, tried | {pod.address}))
        self._num_open += 1
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)

    async def items(self) -> AsyncGenerator[FetchedRecord, None]:
        """All items; then the first error, if there was one."""
        while self._num_open:
            item = await self._arrived.get()
            if item is None:
                self._num_open -= 1
            else:
                yield item
        if self._failures:
            raise self._failures[0]

    async def cancel(self) -> None:
        """End what is under way."""
        streams = list(self._streams)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    async def _stream(self, pod: _Pod, ids: Collection[str], tried: frozenset[str]) -> None:
        try:
            await self._read(pod, ids, tried)
        except Exception as error:
            self._failures.append(error)
        await self._arrived.put(None)

    async def _read(self, pod: _Pod, ids: Collection[str], tried: frozenset[str]) -> None:
        waiting = dict.fromkeys(ids)
        try:
            async with _Use(self._pool, pod) as client:
                left = max(0.0, self._until - _now())
                async for item in client.batch_get(self._bank, self._model_fingerprint, list(ids), timeout=left):
                    waiting.pop(item.reference_id, None)
                    await self._arrived.put(item)
        except Memory3Error as error:
            if not self._pool.is_gone(pod, error):
                raise
            others = [other for other in await self._pool.order(self._bank) if other.address not in tried]
            if not others:
                raise
            self.spread(waiting, tried, others)


class _Use:
    """A pod's client for the length of a with block; closed behind the last user of a pod that left."""

    def __init__(self, pool: MemoryPool, pod: _Pod) -> None:
        self._pool, self._pod = pool, pod

    async def __aenter__(self) -> MemoryClient:
        self._pod.calls += 1
        return self._pod.client

    async def __aexit__(self, *_: object) -> None:
        self._pod.calls -= 1
        if self._pod.left and not self._pod.calls:
            self._pool.let_go(self._pod)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _has_details(error: grpc.aio.AioRpcError) -> bool:
    """Whether a server of ours made the status, not gRPC on this side."""
    return any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())
