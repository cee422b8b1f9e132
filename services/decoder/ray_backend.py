"""GenerationBackend on Ray Serve: a deployment handle, and Ray's errors translated. Knows no model.

The front calls the handle directly; Ray's own proxies are not started (docs/decisions/0002).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import ProxyLocation
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from memory3.errors import BackendUnavailableError, InternalError, Memory3Error, OverloadedError
from memory3.types import DecoderInfo, GenerationEvent, GenerationRequest, ReferenceText, WriteResult
from services.decoder.app import application
from services.decoder.config import DecoderSettings, keep_ray_quiet
from services.decoder.loading import check_model
from services.decoder.ports import Carrier

APPLICATION = "memory3-decoder"
NAMESPACE = "memory3"

_CHECK_TIMEOUT_S = 4.0
_LOOK_AGAIN_S = 1.0
"""Time between two looks at a cluster that is not ready; seconds."""

log = logging.getLogger(__name__)


class RayBackend:
    """Workers as Ray Serve replicas."""

    def __init__(self, handle: DeploymentHandle, *, owns_ray: bool, owns_workers: bool, max_tries: int) -> None:
        """`max_tries`: workers asked before a generation is refused as overload."""
        self._max_tries = max_tries
        self._owns_workers = owns_workers
        self._handle = handle
        self._streaming = handle.options(stream=True)
        self._owns_ray = owns_ray

    @classmethod
    async def start(cls, settings: DecoderSettings) -> RayBackend:
        """Start or join Ray, deploy the workers and wait until they have loaded their model.

        Raises ValueError with the replica's own words if the workers cannot start. Where somebody else deploys them
        (ray_deploy false), it waits for them as long as it takes, and says for what.
        """
        keep_ray_quiet()
        if settings.ray_address and not settings.ray_deploy:
            handle = await _deployed(settings)
            return cls(handle, owns_ray=False, owns_workers=False, max_tries=settings.max_workers)
        owns_ray = not settings.ray_address
        if owns_ray:
            # Said here in one line, instead of by Ray after three tries with a traceback each.
            await asyncio.to_thread(check_model, settings)
        await asyncio.to_thread(_init, settings)
        try:
            handle = await asyncio.to_thread(_deploy, settings)
        except RuntimeError as error:
            await asyncio.to_thread(_shut_down, owns_ray, owns_workers=True)
            raise ValueError(f"the workers did not start: {error}") from error
        return cls(handle, owns_ray=owns_ray, owns_workers=True, max_tries=settings.max_workers)

    async def generate(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """See GenerationBackend."""
        for tries_left in reversed(range(self._max_tries)):
            try:
                async with contextlib.aclosing(self._stream(request, carrier, timeout_s)) as events:
                    async for event in events:
                        yield event
                return
            except OverloadedError:
                # Said before any event. Ray takes the shorter of two queues as it last saw them: another may be free.
                if not tries_left:
                    raise

    async def _stream(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        with _translated():
            events = self._streaming.generate.remote(request, dict(carrier), timeout_s)
            try:
                async for event in events:
                    yield event
            finally:
                events.cancel()

    async def write(self, bank: str, references: Sequence[ReferenceText], carrier: Carrier) -> WriteResult:
        """See GenerationBackend."""
        with _translated():
            result: WriteResult = await self._handle.write.remote(bank, list(references), dict(carrier))
            return result

    async def info(self) -> DecoderInfo:
        """See GenerationBackend."""
        with _translated():
            info: DecoderInfo = await self._handle.info.remote()
            return info

    async def check(self) -> None:
        """See GenerationBackend."""
        with _translated():
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT_S):
                    await self._handle.check_health.remote()
            except TimeoutError:
                raise BackendUnavailableError(
                    f"no worker answered within {_CHECK_TIMEOUT_S:g} s; see Ray's logs of the application {APPLICATION}"
                ) from None

    async def close(self) -> None:
        """See GenerationBackend. A cluster that was joined goes on; only our application leaves it."""
        await asyncio.to_thread(_shut_down, self._owns_ray, owns_workers=self._owns_workers)


def _init(settings: DecoderSettings) -> None:
    if settings.ray_address:
        ray.init(address=settings.ray_address, namespace=NAMESPACE, log_to_driver=False)
        return
    limits: dict[str, Any] = {"num_cpus": math.ceil(settings.ray_num_cpus)} if settings.ray_num_cpus else {}
    ray.init(
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=settings.ray_object_store_bytes,
        # The replicas' own log lines are JSON; Ray's prefix tells which replica wrote them.
        log_to_driver=True,
        logging_level="WARNING",
        _node_ip_address="127.0.0.1",
        # Ray runs its workers at niceness 15, as batch work; decoding would starve beside the other tiers.
        _system_config={"worker_niceness": 0},
        **limits,
    )


def _deploy(settings: DecoderSettings) -> DeploymentHandle:
    serve.start(proxy_location=ProxyLocation.Disabled, logging_config={"log_level": "WARNING"})
    return serve.run(application(settings), name=APPLICATION, route_prefix=None)


async def _deployed(settings: DecoderSettings) -> DeploymentHandle:
    """The workers' handle, as soon as there is a cluster, the application in it, and a worker that answers."""
    waiting_for = ""
    while True:
        try:
            if not ray.is_initialized():
                await asyncio.to_thread(_init, settings)
            handle = await asyncio.to_thread(serve.get_app_handle, APPLICATION)
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await handle.check_health.remote()
            return handle
        except ConnectionError:
            missing = f"a Ray node here that joined {settings.ray_address}"
        except TimeoutError:
            missing = "a worker that has loaded its model"
        except (RayError, RayServeException) as error:
            missing = f"the application {APPLICATION} in the cluster ({type(error).__name__})"
        if missing != waiting_for:
            waiting_for = missing
            log.warning("waiting for %s", missing)
        await asyncio.sleep(_LOOK_AGAIN_S)


def _shut_down(owns_ray: bool, *, owns_workers: bool) -> None:
    with contextlib.suppress(RayError, RayServeException):
        if owns_ray:
            serve.shutdown()
        elif owns_workers:
            serve.delete(APPLICATION)
    ray.shutdown()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Ray's errors inside the block as ours; a replica that dies is a backend that is away for a moment."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, Memory3Error):
            raise error.cause from None
        raise InternalError(f"the worker failed: {type(error.cause).__name__}: {error.cause}") from error
    except BackPressureError as error:
        raise OverloadedError("the workers' queue is full; try again in a moment", retry_after_ms=500) from error
    except (RayError, RayServeException) as error:
        raise BackendUnavailableError(
            f"the worker went away ({type(error).__name__}); send the request again"
        ) from error
