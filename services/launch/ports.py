"""What the launcher needs from others: a way to ask a tier whether it can be used."""

from __future__ import annotations

from typing import Protocol


class Probe(Protocol):
    """Asks one address."""

    async def __call__(self, address: str) -> bool:
        """Whether the tier there serves; False for any failure to answer."""
