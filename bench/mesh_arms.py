"""The arms of bench.mesh: three tiers over gRPC, with Ray and without, and the same tiers in this process."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.one_process import one_process
from bench.stack import stack
from memory3.decoder import DecoderClient
from memory3.types import GenerationEvent, GenerationRequest
from services.common.config import load
from services.decoder.config import DecoderSettings
from services.decoder.core import DecoderCore
from services.memory.config import MemorySettings
from services.retrieval.config import RetrievalSettings
from tests.helpers import decoder_stack as tiny
from tests.helpers.processes import ServiceProcess

BASE = "one process"
THREADS = 2
"""Of the model in every arm: a Ray replica would take one, the embedder has two by default."""
PATIENT = {"tier_slow_ms": 60_000, "fetch_timeout_ms": 60_000}
"""Settings of every decoder. On a busy machine a tier must not be taken as down: an answer would go on without it."""
CONTEXT_TOKENS = 2048
"""Of a sequence at most: three models with the room of their default would take 12 GB."""


@dataclass(frozen=True)
class Arm:
    """How one arm is asked, and the processes beside this one whose CPU it takes, with their children."""

    ask: Callable[[GenerationRequest], AsyncGenerator[GenerationEvent, None]]
    processes: Sequence[int] = ()


def _cache(worker_cache: bool) -> dict[str, int]:
    return {} if worker_cache else {"cache_bytes": 0}


def _environment(changed: Mapping[str, object]) -> dict[str, str]:
    return {f"MEMORY3_DECODER_{name.upper()}": str(value) for name, value in changed.items()}


@contextlib.contextmanager
def _decoder(environment: Mapping[str, str], log: Path) -> Iterator[ServiceProcess]:
    """One more decoder; Ray takes its time to start."""
    process = ServiceProcess("services.decoder", environment, log)
    try:
        process.start(timeout_s=240)
        yield process
    finally:
        process.stop()


async def _all_arms(
    core: DecoderCore,
    decoders: Mapping[str, ServiceProcess],
    tiers: Sequence[int],
    stack: contextlib.AsyncExitStack,
) -> dict[str, Arm]:
    """By name; `tiers`: processes that all decoders share."""
    arms = {BASE: Arm(lambda request: core.generate(request, 600.0))}
    for name, service in decoders.items():
        client = await stack.enter_async_context(DecoderClient(service.address))
        arms[name] = Arm(client.generate, [*tiers, service.pid])
    return arms


@contextlib.asynccontextmanager
async def real_arms(
    folder: Path, documents: int, *, ray: bool, worker_cache: bool
) -> AsyncGenerator[dict[str, Arm], None]:
    """The arms with real weights, on the same bank of Wikipedia leads."""
    mesh, alone = folder / "mesh", folder / "alone"
    changed = {**PATIENT, "torch_threads": THREADS, "max_context_tokens": CONTEXT_TOKENS, **_cache(worker_cache)}
    decoder = _environment(changed)
    async with contextlib.AsyncExitStack() as started:
        running = started.enter_context(stack(mesh, decoder))
        print(f"writing {documents} documents", file=sys.stderr, flush=True)
        running.ingest(documents, "warm")
        alone.mkdir()
        running.retrieval.stop()  # an index that is open is not whole on disk
        copy = shutil.copytree if (mesh / "index.db").is_dir() else shutil.copy2
        copy(mesh / "index.db", alone / "index.db")
        running.retrieval.restart_on_same_port("MEMORY3_RETRIEVAL_PORT", timeout_s=240)
        tiers = [running.retrieval.pid, running.memory.pid]
        decoders = {"gRPC": running.decoder}
        if ray:
            environment = {
                "MEMORY3_DECODER_PORT": "0",
                "MEMORY3_DECODER_BACKEND": "ray",
                "MEMORY3_DECODER_RETRIEVAL_ADDRESS": running.retrieval.address,
                "MEMORY3_DECODER_MEMORY_ADDRESS": running.memory.address,
                **decoder,
            }
            decoders["gRPC, Ray"] = started.enter_context(_decoder(environment, mesh / "ray.log"))
        core, _ = await started.enter_async_context(
            one_process(
                load(RetrievalSettings).model_copy(update={"milvus_uri": str(alone / "index.db")}),
                load(MemorySettings).model_copy(update={"store_uri": str(mesh / "memories")}),
                load(DecoderSettings).model_copy(update=changed),
            )
        )
        yield await _all_arms(core, decoders, tiers, started)


@contextlib.asynccontextmanager
async def tiny_arms(folder: Path, *, ray: bool, worker_cache: bool) -> AsyncGenerator[dict[str, Arm], None]:
    """The arms with a tiny random model, hashed words as vectors and eight references: nearly all is mesh."""
    changed = {**PATIENT, "torch_threads": 1, **_cache(worker_cache)}
    async with contextlib.AsyncExitStack() as started:
        running = started.enter_context(tiny.decoder_stack(folder, "local", decoder_env=_environment(changed)))
        indexed = await tiny.index(running)
        await tiny.write(running)
        decoders = {"gRPC": running.decoder}
        if ray:
            environment = {**running.decoder_env, "MEMORY3_DECODER_BACKEND": "ray"}
            decoders["gRPC, Ray"] = started.enter_context(_decoder(environment, folder / "ray.log"))
        files = {name: running.decoder_env[f"MEMORY3_DECODER_{name.upper()}"] for name in ("model", "plan")}
        core, references = await started.enter_async_context(
            one_process(
                load(RetrievalSettings).model_copy(update={"index": "local", "embedder": "hash"}),
                load(MemorySettings).model_copy(update={"store_uri": str(folder / "records")}),
                load(DecoderSettings).model_copy(update={**changed, **files}),
            )
        )
        for reference in indexed:
            await references.upsert(tiny.BANK, reference.document_id, "1", [reference], last_part=True)
        yield await _all_arms(core, decoders, [running.retrieval.pid, running.memory.pid], started)
