"""How our words are written for Milvus: collection names, filters, addresses in messages. Needs no pymilvus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

_PREFIX = "memory3_"


def collection_of(bank: str) -> str:
    """The collection of a bank. Milvus allows no '-': it becomes '_d', and '_' becomes '_u', so no two banks meet."""
    return _PREFIX + bank.replace("_", "_u").replace("-", "_d")


def bank_of(collection: str) -> str | None:
    """The bank of a collection; None if it is not one of ours."""
    bank = collection.removeprefix(_PREFIX).replace("_d", "-").replace("_u", "_")
    return bank if collection_of(bank) == collection else None


def literal(value: str) -> str:
    """A string in a filter. JSON's escapes are a subset of those that Milvus reads."""
    return json.dumps(value, ensure_ascii=False)


def among(field: str, values: Sequence[str]) -> str:
    """A filter: the field is one of the values."""
    return f"{field} in [{', '.join(map(literal, values))}]"


def without_credentials(uri: str) -> str:
    """Scheme, host and port: what may stand in a message or a log."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
