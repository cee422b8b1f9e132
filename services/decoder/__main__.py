"""`python -m services.decoder`: settings -> backend -> core -> server."""

from __future__ import annotations

import asyncio

from memory3 import semconv, telemetry
from memory3.api.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from services.common import logs
from services.common.config import load
from services.common.server import Mount, serve_forever
from services.common.signals import end_at_sigterm
from services.decoder.assembly import build_worker
from services.decoder.config import DecoderSettings
from services.decoder.core import DecoderCore
from services.decoder.local_backend import LocalBackend
from services.decoder.ports import GenerationBackend
from services.decoder.servicer import DecoderServicer, MemoryWriterServicer


async def make_backend(settings: DecoderSettings) -> GenerationBackend:
    """The backend that the settings name, with its model loaded. Raises ValueError where the model cannot be."""
    if settings.backend == "local":
        return LocalBackend(await build_worker(settings))
    from services.decoder.ray_backend import RayBackend  # noqa: PLC0415 - Ray is heavy, and the local backend needs none

    return await RayBackend.start(settings)


def mounts(core: DecoderCore) -> list[Mount]:
    """The two services on one core."""
    services = decoder_pb2.DESCRIPTOR.services_by_name
    return [
        Mount(
            decoder_pb2_grpc.add_DecoderServiceServicer_to_server,
            DecoderServicer(core),
            services["DecoderService"].full_name,
        ),
        Mount(
            decoder_pb2_grpc.add_MemoryWriterServiceServicer_to_server,
            MemoryWriterServicer(core),
            services["MemoryWriterService"].full_name,
        ),
    ]


async def serve(settings: DecoderSettings) -> None:
    """Serve until told to stop."""
    backend = await make_backend(settings)
    try:
        core = DecoderCore(backend, max_generations=settings.max_workers * settings.max_generations_per_worker)
        await serve_forever(settings, mounts(core), [backend.check])
    finally:
        await backend.close()


def main() -> None:
    """Entry point."""
    end_at_sigterm()
    settings = load(DecoderSettings)
    logs.start(semconv.SERVICE_DECODER, settings.log_level)
    stop_telemetry = telemetry.start(semconv.SERVICE_DECODER)
    try:
        asyncio.run(serve(settings))
    except (ValueError, OSError) as error:
        # A model that cannot be loaded is for people to mend: one line, no traceback.
        raise SystemExit(str(error)) from error
    finally:
        stop_telemetry()


if __name__ == "__main__":
    main()
