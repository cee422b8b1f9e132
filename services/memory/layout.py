"""Identity <-> object key. The only place that knows key syntax: banks/<bank>/<ref[:2]>/<ref>/<fingerprint>.m3em

Both ids have a fixed length, so the order of keys in a bank is the order of (reference_id, model_fingerprint).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SUFFIX = ".m3em"
_KEY = re.compile(r"banks/([a-z][a-z0-9_-]{0,62})/([0-9a-f]{2})/([0-9a-f]{32})/([0-9a-f]{32})\.m3em")


@dataclass(frozen=True)
class Identity:
    """All that must agree for a memory to be read. The fields are valid: see limits.py."""

    bank: str
    reference_id: str
    model_fingerprint: str

    def __str__(self) -> str:
        return f"reference {self.reference_id} by model {self.model_fingerprint} in bank {self.bank}"


def object_key(identity: Identity) -> str:
    """Where the record of this identity lies."""
    return f"{reference_prefix(identity.bank, identity.reference_id)}{identity.model_fingerprint}{_SUFFIX}"


def parse_key(key: str) -> Identity | None:
    """The identity whose key this is, or None for an object that is not ours."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    bank, shard, reference_id, model_fingerprint = match.groups()
    return Identity(bank, reference_id, model_fingerprint) if reference_id.startswith(shard) else None


def bank_prefix(bank: str) -> str:
    """What the keys of all memories of a bank begin with."""
    return f"banks/{bank}/"


def reference_prefix(bank: str, reference_id: str) -> str:
    """What the keys of one reference's memories, by any model, begin with."""
    return f"{bank_prefix(bank)}{reference_id[:2]}/{reference_id}/"


def page_token(identity: Identity) -> str:
    """The token of the page that begins after this memory."""
    return f"{identity.reference_id}{identity.model_fingerprint}"


def start_after(bank: str, token: str) -> str:
    """The key after which the page of `token` begins; "" is the first page. Raises ValueError on a foreign token."""
    if not token:
        return ""
    identity = parse_key(object_key(Identity(bank, token[:32], token[32:])))
    if identity is None:
        raise ValueError(f"page_token {token[:80]!r} is not one of this bank's; pass next_page_token back unchanged")
    return object_key(identity)
