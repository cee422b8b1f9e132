"""Whether a tier is ready, by grpc.health.v1. Knows no tier."""

from __future__ import annotations

from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory3.channel import ChannelClient, translated


async def is_serving(tier: ChannelClient, *, timeout: float = 3.0) -> bool:
    """Whether the server behind a client is ready for calls; False while it starts, drains or misses a backend.

    `timeout` in seconds. Raises memory3.errors when nothing answers there.
    """
    async with translated(tier.target):
        stub = health_pb2_grpc.HealthStub(tier.channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
