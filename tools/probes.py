"""Probes of rendered containers, asked over the network as a kubelet asks them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def passes(probe: Mapping[str, Any], container: Mapping[str, Any], address: str) -> bool:
    """Whether the container at this address answers the probe as it should, within its timeout."""
    limit_s = float(probe.get("timeoutSeconds", 1))
    match probe:
        case {"grpc": ask}:
            with grpc.insecure_channel(f"{address}:{ask['port']}") as channel:
                request = health_pb2.HealthCheckRequest(service=ask.get("service", ""))
                try:
                    reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=limit_s)
                except grpc.RpcError:
                    return False
                return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
        case {"httpGet": ask}:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            url = f"http://{address}:{ports.get(ask['port'], ask['port'])}{ask['path']}"
            try:
                with urllib.request.urlopen(url, timeout=limit_s) as response:
                    return 200 <= int(response.status) < 400
            except OSError:
                return False
    raise ValueError(f"probe {dict(probe)} is not known here; grpc and httpGet are")


def wait_until_started(container: Mapping[str, Any], address: str, running: Callable[[], bool]) -> float:
    """Seconds until the startup probe passed. Raises TimeoutError where a kubelet would start the container anew: it
    has ended, or the probe failed for too long."""
    probe = container["startupProbe"]
    limit_s = float(probe["periodSeconds"]) * int(probe["failureThreshold"])
    return _wait("startupProbe", container, address, limit_s, running)


def wait_until_ready(container: Mapping[str, Any], address: str, limit_s: float) -> float:
    """Seconds until the readiness probe passed. Raises TimeoutError."""
    return _wait("readinessProbe", container, address, limit_s, lambda: True)


def _wait(name: str, container: Mapping[str, Any], address: str, limit_s: float, running: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not passes(container[name], container, address):
        if not running():
            raise TimeoutError(f"{container['name']} at {address} ended before its {name} passed")
        if time.monotonic() - began > limit_s:
            raise TimeoutError(f"{container['name']} at {address}: its {name} did not pass within {limit_s:g} s")
        time.sleep(0.5)
    return round(time.monotonic() - began, 1)
