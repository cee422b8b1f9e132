"""Sound records for the memory tier's tests, without a model."""

from __future__ import annotations

import hashlib
import random

from model.codec.record import RecordHeader, pack_record

FINGERPRINT = hashlib.sha256(b"a model").hexdigest()[:32]
OTHER_FINGERPRINT = hashlib.sha256(b"another model").hexdigest()[:32]


def reference_id(number: int) -> str:
    """The id of test reference `number`."""
    return hashlib.sha256(f"reference {number}".encode()).hexdigest()[:32]


def make_record(number: int, *, fingerprint: str = FINGERPRINT, payload_bytes: int = 2_000, seed: int = 0) -> bytes:
    """The record of test reference `number`; another seed gives another payload."""
    header = RecordHeader(reference_id(number), fingerprint, ({"name": "test"},), (1, 1, 1, 1), 1)
    return pack_record(header, random.Random(f"{number} {seed}").randbytes(payload_bytes))
