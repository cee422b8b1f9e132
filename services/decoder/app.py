"""The Ray Serve application: workers as replicas. With ray_backend.py the only place that imports Ray.

Only the deployment lives here; callers reach it through RayBackend, never through Ray's own proxies.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray import serve

from memory3 import semconv, telemetry
from memory3.types import DecoderInfo, GenerationEvent, GenerationRequest, ReferenceText, WriteResult
from services.common import logs
from services.common.config import load
from services.decoder.assembly import build_worker
from services.decoder.config import DecoderSettings
from services.decoder.ports import Carrier

DEPLOYMENT = "worker"

_SPARE_CALLS = 64
"""Calls a replica takes beside its generations: writes, checks. The worker refuses overload itself, with a hint."""


class WorkerReplica:
    """One worker in a Ray actor. Errors of memory3.errors pass through Ray as the causes of its own."""

    async def __init__(self, values: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        settings = DecoderSettings(**values)
        logs.start(semconv.SERVICE_WORKER, settings.log_level)
        self._stop_telemetry = telemetry.start(
            semconv.SERVICE_WORKER, instance=serve.get_replica_context().replica_id.unique_id
        )
        if not settings.torch_threads and not settings.num_gpus:
            # Ray limits a replica's threads to the CPUs it reserves, and those are a matter of placement only.
            share = len(os.sched_getaffinity(0)) // settings.max_workers
            settings = settings.model_copy(update={"torch_threads": max(1, share)})
        self._worker = await build_worker(settings)

    async def generate(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """See GenerationBackend."""
        async for event in self._worker.generate(request, carrier, timeout_s):
            yield event

    async def write(self, bank: str, references: Sequence[ReferenceText], carrier: Carrier) -> WriteResult:
        """See GenerationBackend."""
        return await self._worker.write(bank, references, carrier)

    async def info(self) -> DecoderInfo:
        """See GenerationBackend."""
        return self._worker.info()

    async def check_health(self) -> None:
        """Ray calls this now and then, and replaces a replica that raises."""
        self._worker.check()

    async def __del__(self) -> None:
        await self._worker.stop()
        self._stop_telemetry()


def build(_: dict[str, str]) -> serve.Application:
    """What KubeRay deploys (import_path services.decoder.app:build): the application of this process's environment.

    Raises ValueError, which shows in the state of the RayService, for settings that are wrong.
    """
    try:
        return application(load(DecoderSettings))
    except SystemExit as error:
        raise ValueError("wrong MEMORY3_DECODER_ settings; the log of this Ray node names each") from error


def application(settings: DecoderSettings) -> serve.Application:
    """The deployment as the settings want it."""
    scale: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.autoscaling_max:
        scale = {
            "autoscaling_config": {
                "min_replicas": settings.autoscaling_min,
                "max_replicas": settings.autoscaling_max,
                "target_ongoing_requests": settings.autoscaling_target,
            }
        }
    deployment = serve.deployment(WorkerReplica).options(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_ongoing_requests=settings.max_generations_per_worker + _SPARE_CALLS,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=settings.replica_drain_seconds,
        max_constructor_retry_count=2,
        # Serve logs every error a caller is meant to get as a failed request with its traceback; our own log has ours.
        logging_config={"enable_access_log": False, "log_level": "CRITICAL"},
        **scale,
    )
    return deployment.bind(settings.model_dump(mode="json"))
