"""The door on a real server: tokens, rights, the access file and its changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from memory3.api.memory.v1 import memory_pb2_grpc
from memory3.api.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from memory3.channel import open_channel, translated
from memory3.client import Client
from memory3.errors import Memory3Error, PermissionDeniedError, UnauthenticatedError
from memory3.health import is_serving
from memory3.rights import Right
from memory3.security import PLAIN, ChannelSecurity
from memory3.tokens import new_token
from services.common.config import ServerSettings
from services.common.server import Mount, RunningServer, running_server

FINGERPRINT, REFERENCE = "f" * 32, "a" * 32


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Has no bank; as a tier whose own backend refuses it, on demand."""

    refused = False

    async def ListBanks(self, request: Any, context: Any) -> retrieval_pb2.ListBanksResponse:
        if self.refused:
            raise UnauthenticatedError("the token is not known here")
        return retrieval_pb2.ListBanksResponse()

    async def Upsert(self, request: Any, context: Any) -> retrieval_pb2.UpsertResponse:
        return retrieval_pb2.UpsertResponse()

    async def Delete(self, request: Any, context: Any) -> retrieval_pb2.DeleteResponse:
        return retrieval_pb2.DeleteResponse()


class Memory(memory_pb2_grpc.MemoryServiceServicer):
    """Has no memory."""

    async def BatchGet(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for item in ():
            yield item


def let_in(path: Path, name: str, *rights: Right) -> ChannelSecurity:
    """Add a caller to the access file; how it calls."""
    token, entry = new_token(name, rights)
    with path.open("a") as file:
        file.write(entry.to_json() + "\n")
    return ChannelSecurity(token=token)


def change(path: Path, how: Callable[[list[str]], list[str]]) -> list[str]:
    """Write other lines into the file; those of before."""
    before = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in how(before)))
    return before


@pytest.fixture
def access(tmp_path: Path) -> Path:
    path = tmp_path / "access.jsonl"
    let_in(path, "somebody", Right.READ)
    return path


@pytest.fixture
async def server(access: Path) -> AsyncIterator[RunningServer]:
    mounts = [
        Mount(
            retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server,
            Retrieval(),
            "memory3.api.retrieval.v1.RetrievalService",
        ),
        Mount(memory_pb2_grpc.add_MemoryServiceServicer_to_server, Memory(), "memory3.api.memory.v1.MemoryService"),
    ]
    async with running_server(ServerSettings(port=0, drain_seconds=0.2, access_file=access), mounts) as running:
        yield running


@contextlib.asynccontextmanager
async def calling(server: RunningServer, security: ChannelSecurity) -> AsyncIterator[Client]:
    async with Client(retrieval=server.address, memory=server.address, security=security) as client:
        yield client


async def answered(server: RunningServer, security: ChannelSecurity) -> set[str]:
    """Which of four calls, one of each right and a stream, are served; the others must lack their right."""
    served = set()
    async with calling(server, security) as client:
        calls = {
            "list": client.retrieval.list_banks(),
            "upsert": client.retrieval.upsert("bank", "document", "1", []),
            "delete": client.retrieval.delete("bank", ["document"]),
            "fetch": anext(client.memory.batch_get("bank", FINGERPRINT, [REFERENCE]), None),
        }
        for name, call in calls.items():
            try:
                await call
                served.add(name)
            except PermissionDeniedError:
                continue
    return served


@pytest.mark.parametrize(
    ("rights", "served"),
    [
        ([Right.READ], {"list", "fetch"}),
        ([Right.WRITE], {"upsert"}),
        ([Right.ADMIN], {"delete"}),
        (list(Right), {"list", "fetch", "upsert", "delete"}),
    ],
    ids=["read", "write", "admin", "all"],
)
async def test_each_right_opens_its_calls(
    server: RunningServer, access: Path, rights: list[Right], served: set[str]
) -> None:
    assert await answered(server, let_in(access, "caller", *rights)) == served


async def test_a_read_token_used_to_write_is_told_what_it_lacks(server: RunningServer, access: Path) -> None:
    async with calling(server, let_in(access, "laptop", Right.READ)) as client:
        with pytest.raises(
            PermissionDeniedError, match="Upsert needs the right write, and the token of laptop has read"
        ):
            await client.retrieval.upsert("bank", "document", "1", [])


@pytest.mark.parametrize(
    ("security", "said"),
    [
        (PLAIN, "the call has no token"),
        (ChannelSecurity(token="m3_wrong"), "the token is not known here"),
    ],
    ids=["none", "wrong"],
)
async def test_no_or_a_wrong_token(server: RunningServer, security: ChannelSecurity, said: str) -> None:
    async with calling(server, security) as client:
        for call in (
            client.retrieval.list_banks(),
            client.retrieval.upsert("bank", "document", "1", []),
            anext(client.memory.batch_get("bank", FINGERPRINT, [REFERENCE])),
        ):
            with pytest.raises(UnauthenticatedError, match=said) as caught:
                await call
            assert not caught.value.retriable
            assert "m3_wrong" not in str(caught.value)


@pytest.mark.parametrize("value", ["m3_wrong", "Basic m3_wrong", "", "Bearer", "Bearer "])
async def test_metadata_that_is_no_bearer_token(server: RunningServer, value: str) -> None:
    async with open_channel(server.address, retry=False) as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        with pytest.raises(UnauthenticatedError) as caught:
            async with translated(server.address):
                await stub.ListBanks(retrieval_pb2.ListBanksRequest(), metadata=[("authorization", value)], timeout=5)
    assert "m3_wrong" not in str(caught.value)


async def test_health_and_reflection_are_open(server: RunningServer) -> None:
    async with calling(server, PLAIN) as client:
        assert await is_serving(client.retrieval)
        stub = reflection_pb2_grpc.ServerReflectionStub(client.retrieval.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter([request]), timeout=5):
            assert response.list_services_response.service
            break


async def test_an_unknown_method_stays_unknown(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/memory3.api.memory.v1.MemoryService/Steal")(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_of_nonsense_is_refused_before_it_is_read(server: RunningServer) -> None:
    async with open_channel(server.address, retry=False) as channel:
        with pytest.raises(UnauthenticatedError):
            async with translated(server.address):
                await channel.unary_unary("/memory3.api.retrieval.v1.RetrievalService/ListBanks")(b"\xff", timeout=5)


async def test_a_changed_access_file_holds_for_the_next_call(server: RunningServer, access: Path) -> None:
    security = let_in(access, "caller", Right.READ)
    async with calling(server, security) as client:
        await client.retrieval.list_banks()
        lines = change(access, lambda lines: [line for line in lines if '"caller"' not in line])
        with pytest.raises(UnauthenticatedError):
            await client.retrieval.list_banks()
        change(access, lambda _: lines)
        await client.retrieval.list_banks()


async def test_an_access_file_that_is_broken_later_leaves_the_entries_of_before(
    server: RunningServer, access: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with calling(server, let_in(access, "caller", Right.READ)) as client:
        await client.retrieval.list_banks()
        change(access, lambda lines: [*lines, "m3_hidden"])
        await client.retrieval.list_banks()
    assert "line 3 is no JSON object" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_tier_that_is_itself_refused_does_not_blame_its_caller(
    server: RunningServer, access: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Retrieval, "refused", True)
    async with calling(server, let_in(access, "caller", Right.READ)) as client:
        with pytest.raises(Memory3Error, match="a tier behind this one refuses its token") as caught:
            await client.retrieval.list_banks()
    assert not isinstance(caught.value, UnauthenticatedError)
