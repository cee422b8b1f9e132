"""A real gRPC server for every service of protos/ that records calls and answers as told.

    async with recording_server() as server:
        server.reply("RetrievalService/ListBanks", ListBanksResponse())
        ...
        assert server.calls[0].request == ...

Replies to one method are used in order. A call without a reply, or a reply without a call, fails the test at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.errors import Memory3Error, to_status


class Hold:
    """Answer nothing more until the caller goes away."""


Step: TypeAlias = Message | Memory3Error | grpc.StatusCode | Hold
"""A message to send, an error with our details, a bare status as gRPC itself would make it, or silence."""

_METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method
    for module in (retrieval_pb2, memory_pb2, decoder_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass
class RecordedCall:
    """One call that arrived; `timeout_s` is what was left of its deadline then, None without one."""

    method: str
    request: Any
    metadata: dict[str, Any]
    timeout_s: float | None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class RecordingServer(grpc.GenericRpcHandler):
    """See the module's docstring. `address` is "127.0.0.1:port"; grpc.health.v1 answers what `ready` says."""

    def __init__(self) -> None:
        self.address = ""
        self.ready = True
        self.calls: list[RecordedCall] = []
        self._replies: dict[str, deque[Sequence[Step]]] = defaultdict(deque)
        self._unexpected: list[str] = []

    async def start(self, address: str = "127.0.0.1:0") -> None:
        """Listen on a free port of the loopback, or again at the address of before."""
        self._server = grpc.aio.server(handlers=[self])
        port = self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """End calls under way and close the port."""
        await self._server.stop(grace=None)

    def reply(self, method: str, *steps: Step) -> None:
        """Answer the next call of "Service/Method": unary ones with one message, streams with any number."""
        assert method in _METHODS, f"no such method: {method}; there are {sorted(_METHODS)}"
        self._replies[method].append(steps)

    def check(self) -> None:
        """Raise AssertionError if a call had no reply or a reply no call."""
        unused = {method: len(left) for method, left in self._replies.items() if left}
        assert not self._unexpected, f"calls without a reply: {self._unexpected}"
        assert not unused, f"replies without a call: {unused}"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(
                self._check_health, health_pb2.HealthCheckRequest.FromString, _serialise
            )
        name = handler_call_details.method.rpartition(".")[2]
        method = _METHODS.get(name)
        if method is None:
            return None
        codec = {
            "request_deserializer": message_factory.GetMessageClass(method.input_type).FromString,
            "response_serializer": _serialise,
        }

        async def stream(request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
            async for message in self._answer(name, request, context):
                yield message

        async def unary(request: Message, context: grpc.aio.ServicerContext) -> Message:
            messages = [message async for message in self._answer(name, request, context)]
            assert len(messages) == 1, f"{name} is unary and was told to answer {len(messages)} messages"
            return messages[0]

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.unary_unary_rpc_method_handler(unary, **codec)

    async def _check_health(self, _: Message, __: grpc.aio.ServicerContext) -> Message:
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if self.ready else states.NOT_SERVING)

    async def _answer(self, name: str, request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
        call = RecordedCall(name, request, dict(context.invocation_metadata() or ()), context.time_remaining())
        self.calls.append(call)
        if not self._replies[name]:
            self._unexpected.append(name)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no reply was prepared for {name}")
        try:
            for step in self._replies[name].popleft():
                match step:
                    case Memory3Error():
                        await context.abort(*to_status(step))
                    case grpc.StatusCode():
                        await context.abort(step, "made by the test")
                    case Hold():
                        await asyncio.Event().wait()
                    case _:
                        yield step
        except asyncio.CancelledError:
            call.cancelled.set()
            raise


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


@contextlib.asynccontextmanager
async def recording_server() -> AsyncIterator[RecordingServer]:
    """A recording server in the running loop; checks its replies at the end of a block that raised nothing."""
    recording = RecordingServer()
    await recording.start()
    try:
        yield recording
        recording.check()
    finally:
        await recording.stop()


@contextlib.contextmanager
def recording_server_in_thread() -> Iterator[RecordingServer]:
    """The same beside code that runs an event loop of its own, such as the command line."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="recording-server")
    thread.start()
    recording = RecordingServer()
    try:
        asyncio.run_coroutine_threadsafe(recording.start(), loop).result(timeout=10)
        yield recording
        recording.check()
    finally:
        asyncio.run_coroutine_threadsafe(recording.stop(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
