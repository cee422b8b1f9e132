"""What is not a proper message, sent to every call of every tier: refused with a reason, and the tier goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.channel import MAX_MESSAGE_BYTES
from memory3.errors import MalformedRequestError, from_rpc_error
from tests.helpers.decoder_stack import DecoderStack, decoder_stack

TIERS = {"retrieval": retrieval_pb2, "memory": memory_pb2, "decoder": decoder_pb2}
METHODS = [
    pytest.param(tier, method, id=f"{method.containing_service.name}.{method.name}")
    for tier, module in TIERS.items()
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
NO_ARGUMENTS = {"ListBanks", "Info"}
"""Calls whose empty request is a proper one."""
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    with decoder_stack(tmp_path_factory.mktemp("stack"), "local") as started:
        yield started
        for tier in TIERS:
            assert "Traceback" not in getattr(started, tier).log


async def send(address: str, method: Any, data: bytes) -> None:
    """Send raw bytes; raises what the call ends with."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        if method.server_streaming:
            async for _ in channel.unary_stream(path)(data, timeout=10):
                pass
        else:
            await channel.unary_unary(path)(data, timeout=10)


@pytest.mark.parametrize(("tier", "method"), METHODS)
async def test_every_call_refuses_what_is_no_message_of_its(stack: DecoderStack, tier: str, method: Any) -> None:
    address = getattr(stack, tier).address
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(address, method, b"\xff" * 16)
    assert refused.value.code() is INVALID
    error = from_rpc_error(refused.value, tier)
    assert type(error) is MalformedRequestError
    assert f"no request of /{method.containing_service.full_name}/{method.name}" in str(error)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(address, method, bytes([10, *_varint(MAX_MESSAGE_BYTES)]) + bytes(MAX_MESSAGE_BYTES))
    assert refused.value.code() is EXHAUSTED
    if method.name in NO_ARGUMENTS:
        await send(address, method, b"")
    else:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(address, method, b"")
        assert refused.value.code() is INVALID
        assert type(from_rpc_error(refused.value, tier)) is MalformedRequestError


def _varint(number: int) -> Iterator[int]:
    while number > 127:
        yield number & 127 | 128
        number >>= 7
    yield number
