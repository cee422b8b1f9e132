"""Probe on grpc.health.v1, over TLS where the tiers speak it."""

from __future__ import annotations

from memory3.channel import ChannelClient
from memory3.errors import Memory3Error
from memory3.health import is_serving
from services.launch.config import tier_security

TIMEOUT_S = 2.0


async def serving(address: str) -> bool:
    """Whether the server at `address` says SERVING."""
    # A fresh channel each time: one that failed would wait before it looks again.
    async with ChannelClient(address, retry=False, security=tier_security()) as tier:
        try:
            return await is_serving(tier, timeout=TIMEOUT_S)
        except Memory3Error:
            return False
