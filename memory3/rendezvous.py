"""Which of several nodes looks after a key: rendezvous hashing (highest random weight). Knows no network.

Everybody who knows the same nodes gives a key to the same one, without asking anybody. When a node comes or goes, only
the keys that it takes or leaves change their place: one part in n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def weight(key: str, node: str) -> bytes:
    """How much `node` wants `key`; the same in every process."""
    return hashlib.blake2b(f"{node}\0{key}".encode(), digest_size=8).digest()


def ranked(key: str, nodes: Iterable[str]) -> list[str]:
    """The nodes by falling right to `key`: its owner, then who stands in for it, and so on."""
    return sorted(nodes, key=lambda node: weight(key, node), reverse=True)
