"""services/common on a real server: errors, overload, health, reflection, port in use, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from memory3 import channel as channel_module
from memory3.api.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from memory3.channel import open_channel, translated
from memory3.errors import BackendUnavailableError, InternalError, OverloadedError, UnknownBankError
from services.common import server as server_module
from services.common.config import ServerSettings
from services.common.server import Mount, RunningServer, running_server

NAME = "memory3.api.retrieval.v1.RetrievalService"


class Servicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Fails as the bank's name says; "wait" holds the call until released."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def DescribeBank(
        self, request: retrieval_pb2.DescribeBankRequest, context: Any
    ) -> retrieval_pb2.DescribeBankResponse:
        match request.bank:
            case "unknown":
                raise UnknownBankError("bank 'unknown' does not exist; ingest into it first")
            case "bug":
                raise KeyError("a secret of the server")
            case "wait":
                self.entered.set()
                await self.release.wait()
        return retrieval_pb2.DescribeBankResponse(num_documents=1)


async def _describe(address: str, bank: str, timeout: float = 10.0) -> retrieval_pb2.DescribeBankResponse:
    async with open_channel(address, retry=False) as channel, translated(address):
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        return await stub.DescribeBank(retrieval_pb2.DescribeBankRequest(bank=bank), timeout=timeout)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def running(servicer: Servicer) -> AsyncIterator[RunningServer]:
    settings = ServerSettings(port=0, max_concurrent_calls=1, drain_seconds=0.2)
    mount = Mount(retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server, servicer, NAME)
    async with running_server(settings, [mount]) as server:
        yield server
        servicer.release.set()


async def test_a_domain_error_arrives_as_its_class(running: RunningServer) -> None:
    with pytest.raises(UnknownBankError, match="ingest into it first"):
        await _describe(running.address, "unknown")


async def test_every_answer_says_how_long_it_took(running: RunningServer) -> None:
    assert (await _describe(running.address, "fine")).total_ns > 0


async def test_an_unexpected_error_is_internal_and_tells_no_secret(running: RunningServer) -> None:
    with pytest.raises(InternalError, match="KeyError") as caught:
        await _describe(running.address, "bug")
    assert "secret" not in str(caught.value)


async def test_a_call_that_waits_long_outlives_its_pings(servicer: Servicer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the real interval: several pings, no data between them. Who minds them ends it after five seconds."""
    monkeypatch.setattr(server_module, "KEEPALIVE_MS", 1_000)
    fast = {"grpc.keepalive_time_ms": 1_000, "grpc.http2.max_pings_without_data": 0}
    monkeypatch.setattr(channel_module, "_OPTIONS", [*(dict(channel_module._OPTIONS) | fast).items()])
    mount = Mount(retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server, servicer, NAME)
    async with running_server(ServerSettings(port=0), [mount]) as server:
        call = asyncio.create_task(_describe(server.address, "wait", timeout=60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(call), 6.5)
        servicer.release.set()
        assert (await call).num_documents == 1


async def test_a_call_over_the_limit_is_refused_with_a_hint_and_the_next_one_served(
    running: RunningServer, servicer: Servicer
) -> None:
    held = asyncio.create_task(_describe(running.address, "wait"))
    await servicer.entered.wait()
    with pytest.raises(OverloadedError) as caught:
        await _describe(running.address, "fine")
    assert caught.value.retry_after_ms is not None
    assert caught.value.retriable
    servicer.release.set()
    await held
    assert (await _describe(running.address, "fine")).num_documents == 1


async def test_a_cancelled_call_gives_its_permit_back(running: RunningServer, servicer: Servicer) -> None:
    held = asyncio.create_task(_describe(running.address, "wait"))
    await servicer.entered.wait()
    held.cancel()
    await asyncio.wait([held])

    async def served() -> bool:
        try:
            return (await _describe(running.address, "fine")).num_documents == 1
        except OverloadedError:
            return False

    async with asyncio.timeout(5):
        while not await served():
            await asyncio.sleep(0)


async def test_health_follows_the_checks() -> None:
    broken = True

    async def check() -> None:
        if broken:
            raise BackendUnavailableError("milvus does not answer")

    async with running_server(ServerSettings(port=0, drain_seconds=0), [], [check]) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            before = await stub.Check(health_pb2.HealthCheckRequest())
            broken = False
            await running.readiness.refresh()
            after = await stub.Check(health_pb2.HealthCheckRequest())
    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_our_services(running: RunningServer) -> None:
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        async for response in call:
            names = {service.name for service in response.list_services_response.service}
            break
    assert {NAME, "grpc.health.v1.Health"} <= names


async def test_a_port_in_use_is_said_with_its_number(running: RunningServer) -> None:
    port = int(running.address.rsplit(":", 1)[1])
    with pytest.raises(SystemExit, match=str(port)):
        async with running_server(ServerSettings(port=port), []):
            pass
