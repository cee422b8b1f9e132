"""Composition root of the retrieval service: settings -> adapters -> core -> server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from memory3 import semconv, telemetry
from memory3.api.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from services.common import logs
from services.common.config import load
from services.common.server import Mount, serve_forever
from services.common.signals import end_at_sigterm
from services.retrieval.batcher import Batcher
from services.retrieval.config import RetrievalSettings, wait_without_spinning
from services.retrieval.core import RetrievalCore
from services.retrieval.hash_embedder import HashEmbedder
from services.retrieval.local_index import LocalIndex
from services.retrieval.milvus_index import MilvusIndex
from services.retrieval.ports import Embedder, VectorIndex
from services.retrieval.sentence_embedder import SentenceEmbedder
from services.retrieval.servicer import EmbeddingServicer, RetrievalServicer


def make_embedder(settings: RetrievalSettings) -> Embedder:
    """The embedder that the settings name."""
    if settings.embedder == "hash":
        return HashEmbedder(settings.hash_dimension)
    wait_without_spinning()
    return SentenceEmbedder(settings.embedder_folder, threads=settings.embedder_threads)


def make_index(settings: RetrievalSettings) -> VectorIndex:
    """The index that the settings name; a Milvus server need not be up yet."""
    if settings.index == "local":
        return LocalIndex()
    return MilvusIndex(
        settings.milvus_uri,
        token=settings.milvus_credentials,
        ca=settings.milvus_ca,
        timeout_s=settings.milvus_timeout_seconds,
        threads=settings.milvus_threads,
        index_type=settings.milvus_index,
        hnsw_ef=settings.hnsw_ef,
        search_consistency=settings.search_consistency,
    )


def mounts(core: RetrievalCore) -> list[Mount]:
    """The two services on one core."""
    services = retrieval_pb2.DESCRIPTOR.services_by_name
    return [
        Mount(
            retrieval_pb2_grpc.add_EmbeddingServiceServicer_to_server,
            EmbeddingServicer(core),
            services["EmbeddingService"].full_name,
        ),
        Mount(
            retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server,
            RetrievalServicer(core),
            services["RetrievalService"].full_name,
        ),
    ]


@contextlib.asynccontextmanager
async def open_core(
    settings: RetrievalSettings,
) -> AsyncGenerator[tuple[RetrievalCore, Callable[[], Awaitable[None]]], None]:
    """The core on embedder and index, and what checks that the index can be used; closed at the end of the block."""
    batcher = Batcher(
        make_embedder(settings), max_batch_texts=settings.max_batch_texts, max_queue_texts=settings.max_queue_texts
    )
    index = make_index(settings)
    try:
        yield RetrievalCore(index, batcher), index.check
    finally:
        await batcher.close()
        await index.close()


async def serve(settings: RetrievalSettings) -> None:
    """Serve until the process is told to stop."""
    async with open_core(settings) as (core, check):
        await serve_forever(settings, mounts(core), [check])


def main() -> None:
    """Entry point of `python -m services.retrieval`."""
    end_at_sigterm()
    settings = load(RetrievalSettings)
    logs.start(semconv.SERVICE_RETRIEVAL, settings.log_level)
    stop_telemetry = telemetry.start(semconv.SERVICE_RETRIEVAL)
    try:
        asyncio.run(serve(settings))
    finally:
        stop_telemetry()


if __name__ == "__main__":
    main()
