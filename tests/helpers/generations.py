"""Generations of the decoder stack's clients: held, refused, left, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from memory3.api.decoder.v1 import decoder_pb2_grpc
from memory3.decoder import DecoderClient
from memory3.errors import BackendUnavailableError, OverloadedError
from memory3.types import GenerationEvent, GenerationRequest, Mode
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, index, write

LIMITS = {
    "MEMORY3_DECODER_NUM_SLOTS": "2",
    "MEMORY3_DECODER_MAX_WAITING": "2",
    "MEMORY3_DECODER_RAY_NUM_CPUS": "2",
    "MEMORY3_DECODER_COLD_START": "false",
    "MEMORY3_DECODER_RECALL_DEADLINE_MS": "5000",
}
CAPACITY = 4
"""Generations that one worker has at once: its slots and those that wait."""
SLOW_LAYERS = 24
"""Enough for the longest generation to take seconds, so that what ends it early is seen."""
LONG = GenerationRequest(Mode.NONE, prompt="Once", max_tokens=700)
SHORT = GenerationRequest(Mode.NONE, prompt="Once upon a time", max_tokens=6)
ABOUT_A_TOWN = GenerationRequest(Mode.MEMORY, prompt=TEXTS[2][:40], bank=BANK, max_tokens=6)


async def fill(stack: DecoderStack) -> None:
    """Index the texts and write their memories."""
    await index(stack)
    await write(stack)


async def events_of(client: DecoderClient, request: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in client.generate(request)]


async def text_of(client: DecoderClient, request: GenerationRequest) -> str:
    return (await client.generate_once(request)).text


@contextlib.asynccontextmanager
async def held(client: DecoderClient, count: int) -> AsyncIterator[None]:
    """That many long generations under way inside the block; cancelled at its end."""
    streams = [client.generate(LONG) for _ in range(count)]
    try:
        # A sequence that waits for a slot says nothing yet.
        running = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def until_overloaded(client: DecoderClient, timeout_s: float = 2.0) -> None:
    """All generations that were asked for have arrived."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(OverloadedError):
        while True:
            await text_of(client, replace(SHORT, max_tokens=1))
            assert time.monotonic() < deadline, f"not overloaded within {timeout_s:g} s"


async def until_served(client: DecoderClient, request: GenerationRequest, timeout_s: float) -> str:
    """The answer, as soon as there is room."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return await text_of(client, request)
        except (OverloadedError, BackendUnavailableError):
            assert time.monotonic() < deadline, f"not served within {timeout_s:g} s"
            await asyncio.sleep(0.05)


async def cancel_calls(stack: DecoderStack, patient: DecoderClient) -> None:
    """Callers that read what comes, and cancel."""
    async with held(patient, CAPACITY):
        await until_overloaded(patient)


async def break_connection(stack: DecoderStack, patient: DecoderClient) -> None:
    """A client whose connection goes down with its calls."""
    async with DecoderClient(stack.decoder.address, retry=False) as gone:
        streams = [gone.generate(LONG) for _ in range(CAPACITY)]
        reads = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        await until_overloaded(patient)
        await gone.channel.close()
        await asyncio.gather(*reads, return_exceptions=True)


async def cancel_unread(stack: DecoderStack, patient: DecoderClient) -> None:
    """Callers that do not read: the server is held in its send, not in our code, when they cancel."""
    async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        calls = [stub.Generate(LONG.to_pb()) for _ in range(CAPACITY)]
        reads = [asyncio.create_task(call.read()) for call in calls]
        await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        await until_overloaded(patient)
        for call in calls:
            call.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


def replica_pids(folder: Path) -> Sequence[int]:
    """Ray's replicas that were started for this folder."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (process / "cmdline").read_bytes().startswith(b"ray::ServeReplica") and str(folder).encode() in (
                process / "environ"
            ).read_bytes():
                found.append(int(process.name))
    return found
