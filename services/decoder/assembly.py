"""Puts a worker together: model, engine, device, recall, writer, clients. The one place that knows them all.

A composition root of its own beside __main__, because a Ray replica is put together where it runs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor

from memory3.memory_pool import open_memory
from memory3.retrieval import RetrievalClient
from model.engine.engine import Engine, EngineOptions
from model.tokenizer import IncrementalDetokenizer
from services.decoder.breaker import CircuitBreaker
from services.decoder.cold_start import ColdStart
from services.decoder.config import DecoderSettings
from services.decoder.device import Device, EncodeLimits
from services.decoder.encoding import Encoding
from services.decoder.loading import load_model
from services.decoder.memory_cache import MemoryCache
from services.decoder.memory_loader import MemoryLoader
from services.decoder.model_bundle import ModelBundle
from services.decoder.ports import Tiers
from services.decoder.prompt import PromptBuilder
from services.decoder.recall import Recaller
from services.decoder.worker import Worker, WorkerParts
from services.decoder.writer import Writer

_WRITE_TIMEOUT_S = 30.0
"""Of one call to the memory tier while writing: nobody waits for a token meanwhile."""
_PROBE_ID = "0" * 32
"""A reference that does not exist: asking for it is the cheapest question that goes through to the store."""


def connect(settings: DecoderSettings) -> Tiers:
    """The tiers at the addresses that the settings name; they need not be up yet."""
    # A recall has a tight deadline and a fallback; a write has neither, so its client retries.
    security = settings.security
    retrieval = RetrievalClient(settings.retrieval_address, retry=False, security=security)
    memory = open_memory(settings.memory_address, retry=False, security=security)
    patient_memory = open_memory(settings.memory_address, security=security)

    async def close() -> None:
        for client in (retrieval, memory, patient_memory):
            await client.close()

    return Tiers(retrieval, memory, patient_memory, close)


async def build_worker(settings: DecoderSettings, tiers: Tiers | None = None) -> Worker:
    """A started worker; without `tiers` it connects to those of the settings. Raises ValueError, as load_model."""
    # In a thread that ends: loading makes torch's pool of threads there, and a pool that outlives it would slow the
    # one of the device's thread (libgomp spins less between operations when there are more threads than cores).
    with ThreadPoolExecutor(1) as loader:
        model = await asyncio.get_running_loop().run_in_executor(loader, load_model, settings)
    worker = Worker(
        _parts(settings, model, tiers or connect(settings)),
        max_generations=settings.max_generations_per_worker,
        recall_deadline_ms=settings.recall_deadline_ms,
        text_events_per_second=settings.text_events_per_second,
    )
    worker.start()
    return worker


def _parts(settings: DecoderSettings, model: ModelBundle, tiers: Tiers) -> WorkerParts:
    engine = Engine(
        model.runner,
        functools.partial(IncrementalDetokenizer, model.tokenizer),
        time.monotonic_ns,
        EngineOptions(settings.prefill_tokens_per_step, settings.recall_ahead_tokens),
    )
    limits = EncodeLimits(
        batch_size=settings.write_batch_size,
        pause_ns=settings.write_pause_ms * 1_000_000,
        share=settings.write_share,
        max_pending=settings.max_pending_writes,
    )
    device = Device(engine, model.writer, limits)
    slow_s, fetch_s = settings.tier_slow_ms / 1000, settings.fetch_timeout_ms / 1000
    retrieval_breaker = CircuitBreaker(
        "retrieval", functools.partial(tiers.retrieval.list_banks, timeout=slow_s), slow_after_s=slow_s
    )
    memory_breaker = CircuitBreaker(
        "memory",
        functools.partial(tiers.memory.stat, "probe", model.fingerprint, [_PROBE_ID], timeout=slow_s),
        slow_after_s=slow_s,
    )
    encoding = Encoding(device, model)
    cold_start = ColdStart(
        encoding,
        tiers.patient_memory,
        model.fingerprint,
        put_parallelism=settings.put_parallelism,
        put_timeout_s=_WRITE_TIMEOUT_S,
    )
    loader = MemoryLoader(
        tiers.memory,
        model,
        MemoryCache(settings.cache_bytes),
        memory_breaker,
        cold_start if settings.cold_start else None,
        cold_start_per_fetch=settings.cold_start_per_recall,
        fetch_timeout_s=fetch_s,
    )
    recaller = Recaller(tiers.retrieval, retrieval_breaker, loader, retrieve_timeout_s=fetch_s)

    async def close() -> None:
        for part in (recaller, loader, cold_start, retrieval_breaker, memory_breaker):
            await part.close()
        await tiers.close()

    return WorkerParts(
        model=model,
        engine=engine,
        device=device,
        prompts=PromptBuilder(model.tokenizer, model.template, model.plan, model.runner.max_context_tokens),
        recaller=recaller,
        writer=Writer(
            encoding,
            tiers.patient_memory,
            model.fingerprint,
            put_parallelism=settings.put_parallelism,
            timeout_s=_WRITE_TIMEOUT_S,
        ),
        close=close,
    )
