"""Tiers on a real S3 server and Milvus Lite, a load that shows them from all sides, and what they exported."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory3.decoder import DecoderClient
from memory3.errors import UnknownBankError
from memory3.types import Generation, GenerationRequest, Mode
from services.memory.layout import Identity, object_key
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index, write
from tests.helpers.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

BUCKET = "memories"
SECRET = "zanzibar"
"""A word of every prompt."""
NUM_WRITTEN = 6


@dataclass
class Observed:
    """The running tiers, what they export, and the trace ids of the load's generations by what was special."""

    receiver: OtlpReceiver
    stack: DecoderStack
    traces: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def observed_tiers(folder: Path) -> Iterator[Observed]:
    """Started tiers after their load; stopped and cleaned up at the end."""
    with otlp_receiver() as receiver, s3_server() as s3:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with decoder_stack(
            folder,
            "local",
            env=environment,
            # One slot, so that others wait; no cache, so that the memory tier is asked again.
            decoder_env={"MEMORY3_DECODER_NUM_SLOTS": "1", "MEMORY3_DECODER_CACHE_BYTES": "0"},
            retrieval_env={
                "MEMORY3_RETRIEVAL_INDEX": "milvus",
                "MEMORY3_RETRIEVAL_MILVUS_URI": str(folder / "index.db"),
            },
            memory_env={
                "MEMORY3_MEMORY_STORE_URI": s3.uri(BUCKET),
                "MEMORY3_MEMORY_S3_ACCESS_KEY": ACCESS_KEY,
                "MEMORY3_MEMORY_S3_SECRET_KEY": SECRET_KEY,
            },
        ) as stack:
            running = Observed(receiver, stack)
            asyncio.run(_load(running, s3))
            yield running


async def _load(running: Observed, s3: S3Server) -> None:
    """Generations in each mode; memories from S3, from RAM and written on first recall, damaged, late; a refusal."""
    references = await index(running.stack)
    await write(running.stack, TEXTS[:NUM_WRITTEN])
    async with DecoderClient(running.stack.decoder.address) as client:
        fingerprint = (await client.info()).model_fingerprint
        damaged = object_key(Identity(BANK, references[0].reference_id, fingerprint))
        garbage = b"no record"
        await asyncio.to_thread(
            s3.admin().put_object,
            bucket_name=BUCKET,
            object_name=damaged,
            data=io.BytesIO(garbage),
            length=len(garbage),
        )
        running.traces["first"] = (await generate(client)).final.trace_id
        running.traces["again"] = (await generate(client)).final.trace_id
        running.traces["late"] = (await generate(client, recall_deadline_ms=0)).final.trace_id
        together = await asyncio.gather(*(generate(client, mode) for mode in Mode))
        running.traces["waited"] = max((answer.final for answer in together), key=lambda f: f.timing.queue_ns).trace_id
        with contextlib.suppress(UnknownBankError):
            await generate(client, bank="nowhere")


async def generate(
    client: DecoderClient, mode: Mode = Mode.MEMORY, bank: str = BANK, recall_deadline_ms: int = 30_000
) -> Generation:
    """A prompt that recalls most of the bank."""
    return await client.generate_once(
        GenerationRequest(
            mode=mode,
            prompt=f"Which {SECRET} town lies by the sea and is known for its clocks, its eels, its salt or its goats?",
            bank="" if mode is Mode.NONE else bank,
            max_tokens=12,
            recall_deadline_ms=recall_deadline_ms,
        )
    )
