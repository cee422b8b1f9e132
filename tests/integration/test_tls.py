"""TLS on a real server with real certificates: who gets in, who is refused, and renewal without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory3.api.memory.v1 import memory_pb2, memory_pb2_grpc
from memory3.errors import BackendUnavailableError
from memory3.health import is_serving
from memory3.memory import MemoryClient
from memory3.security import PLAIN, ChannelSecurity
from services.common.config import ServerSettings
from services.common.health import ALIVE
from services.common.server import Mount, RunningServer, running_server
from tests.helpers.certificates import Authority, Pair

NAME = "memory3.api.memory.v1.MemoryService"
FINGERPRINT, REFERENCE = "f" * 32, "a" * 32


class Servicer(memory_pb2_grpc.MemoryServiceServicer):
    """Knows no memory; a fetch sends one item and waits until released before the second."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.peers: set[str] = set()

    async def Stat(self, request: memory_pb2.StatRequest, context: Any) -> memory_pb2.StatResponse:
        self.peers.add(context.peer())
        return memory_pb2.StatResponse()

    async def BatchGet(
        self, request: memory_pb2.BatchGetRequest, context: Any
    ) -> AsyncIterator[memory_pb2.BatchGetResponse]:
        yield memory_pb2.BatchGetResponse(reference_id=REFERENCE)
        await self.release.wait()
        yield memory_pb2.BatchGetResponse(reference_id=REFERENCE)


@contextlib.asynccontextmanager
async def serving(servicer: Servicer | None = None, **settings: Any) -> AsyncIterator[RunningServer]:
    mount = Mount(memory_pb2_grpc.add_MemoryServiceServicer_to_server, servicer or Servicer(), NAME)
    async with running_server(ServerSettings(port=0, drain_seconds=0.2, **settings), [mount]) as running:
        yield running


async def call(address: str, security: ChannelSecurity) -> None:
    async with MemoryClient(address, retry=False, security=security) as client:
        await client.stat("bank", FINGERPRINT, [REFERENCE])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "strangers", "stranger")


def trusting(authority: Authority, pair: Pair | None = None, **more: str) -> ChannelSecurity:
    files = {} if pair is None else {"cert": str(pair.cert), "key": str(pair.key)}
    return ChannelSecurity(ca=str(authority.cert), **files, **more)


class TestTls:
    @pytest.fixture
    async def server(self, authority: Authority) -> AsyncIterator[RunningServer]:
        pair = authority.issue("server")
        async with serving(tls_cert=pair.cert, tls_key=pair.key) as running:
            yield running

    async def test_whoever_trusts_the_authority_gets_in(self, server: RunningServer, authority: Authority) -> None:
        await call(server.address, trusting(authority))

    async def test_a_wrong_authority(self, server: RunningServer, stranger: Authority) -> None:
        with pytest.raises(BackendUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await call(server.address, trusting(stranger))

    async def test_plain_text_to_a_server_of_tls(self, server: RunningServer) -> None:
        with pytest.raises(BackendUnavailableError, match="agree on TLS"):
            await call(server.address, PLAIN)

    async def test_tls_to_a_server_of_plain_text(self, authority: Authority) -> None:
        async with serving() as running:
            with pytest.raises(BackendUnavailableError, match="agree on TLS"):
                await call(running.address, trusting(authority))

    async def test_health_is_asked_over_tls_too(self, server: RunningServer, authority: Authority) -> None:
        async with MemoryClient(server.address, security=trusting(authority)) as client:
            assert await is_serving(client)


async def test_a_certificate_of_another_name(authority: Authority) -> None:
    pair = authority.issue("server", host="memory.example")
    async with serving(tls_cert=pair.cert, tls_key=pair.key) as running:
        with pytest.raises(BackendUnavailableError, match="Hostname Verification"):
            await call(running.address, trusting(authority))
        await call(running.address, trusting(authority, server_name="memory.example"))


class TestMutualTls:
    @pytest.fixture
    async def server(self, authority: Authority) -> AsyncIterator[RunningServer]:
        pair = authority.issue("server")
        async with serving(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.cert) as running:
            yield running

    async def test_a_certificate_of_ours_gets_in(self, server: RunningServer, authority: Authority) -> None:
        await call(server.address, trusting(authority, authority.issue("client")))

    async def test_no_certificate(self, server: RunningServer, authority: Authority) -> None:
        with pytest.raises(BackendUnavailableError):
            await call(server.address, trusting(authority))

    async def test_a_certificate_of_a_stranger(
        self, server: RunningServer, authority: Authority, stranger: Authority
    ) -> None:
        with pytest.raises(BackendUnavailableError):
            await call(server.address, trusting(authority, stranger.issue("client")))

    async def test_a_certificate_that_has_expired(self, server: RunningServer, authority: Authority) -> None:
        with pytest.raises(BackendUnavailableError):
            await call(server.address, trusting(authority, authority.issue("client", days=-1)))


class TestRenewal:
    async def test_of_all_files_at_both_ends_while_a_stream_goes_on(self, tmp_path: Path) -> None:
        # The same paths all the time, as in a mounted secret.
        old = Authority(tmp_path)
        server, client = old.issue("server"), old.issue("client")
        servicer = Servicer()
        files = {"tls_cert": server.cert, "tls_key": server.key, "tls_client_ca": old.cert}
        async with serving(servicer, **files) as running:
            before = trusting(old, client)
            async with MemoryClient(running.address, retry=False, security=before) as memory:
                stream = memory.batch_get("bank", FINGERPRINT, [REFERENCE])
                await anext(stream)

                new = Authority(tmp_path)
                new.issue("server", into=server)
                with pytest.raises(BackendUnavailableError):  # the client's certificate is of the old authority
                    await call(running.address, ChannelSecurity(str(new.cert), *_copies(client, tmp_path)))
                new.issue("client", into=client)
                await memory.stat("bank", FINGERPRINT, [REFERENCE])

                servicer.release.set()
                assert [item.reference_id async for item in stream] == [REFERENCE]

    async def test_a_renewal_that_cannot_be_used_leaves_the_old_one(self, authority: Authority) -> None:
        pair = authority.issue("server")
        async with serving(tls_cert=pair.cert, tls_key=pair.key) as running:
            authority.issue("server", into=pair, days=-1)
            await call(running.address, trusting(authority))
            pair.cert.write_text("nothing")
            await call(running.address, trusting(authority))


def _copies(pair: Pair, folder: Path) -> tuple[str, str]:
    for path in (pair.cert, pair.key):
        (folder / f"copy-{path.name}").write_bytes(path.read_bytes())
    return str(folder / f"copy-{pair.cert.name}"), str(folder / f"copy-{pair.key.name}")


async def test_calls_go_on_across_the_end_of_a_connection(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.server._TLS_CONNECTION_MS", 100)
    pair = authority.issue("server")
    servicer = Servicer()
    async with serving(servicer, tls_cert=pair.cert, tls_key=pair.key) as running:
        async with (
            MemoryClient(running.address, retry=False, security=trusting(authority)) as client,
            asyncio.timeout(30),
        ):
            stream = client.batch_get("bank", FINGERPRINT, [REFERENCE])
            await anext(stream)
            while len(servicer.peers) < 3:
                await client.stat("bank", FINGERPRINT, [REFERENCE])
            servicer.release.set()
            assert [item.reference_id async for item in stream] == [REFERENCE]


async def test_the_health_port_is_plain_and_has_health_only(authority: Authority) -> None:
    pair = authority.issue("server")
    down = True

    async def check() -> None:
        if down:
            raise BackendUnavailableError("the store does not answer")

    settings = ServerSettings(
        port=0, drain_seconds=0, health_port=0, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.cert
    )
    mount = Mount(memory_pb2_grpc.add_MemoryServiceServicer_to_server, Servicer(), NAME)
    async with running_server(settings, [mount], [check]) as running:
        async with grpc.aio.insecure_channel(running.health_address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def status(service: str) -> Any:
                return (await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status

            assert await status("") == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await status(ALIVE) == health_pb2.HealthCheckResponse.SERVING
            down = False
            await running.readiness.refresh()
            assert await status("") == await status(NAME) == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await memory_pb2_grpc.MemoryServiceStub(channel).Stat(memory_pb2.StatRequest(), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_health_port_in_use_is_said_with_its_number() -> None:
    async with serving() as running:
        port = int(running.address.rsplit(":", 1)[1])
        with pytest.raises(SystemExit, match=str(port)):
            async with serving(health_port=port):
                pass


async def test_half_of_tls_never_serves(authority: Authority) -> None:
    with pytest.raises(ValueError, match="TLS_CERT is set without TLS_KEY"):
        async with serving(tls_cert=authority.cert):
            pass
