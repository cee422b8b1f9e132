"""The stored form of one explicit memory: a checked envelope around the codec's payload (docs/memory-format.md).

Standard library only: the memory tier verifies records with this file and never looks inside a payload. It knows no
arrays, no codec stages and no store.

    magic 8 | version u16 | reserved u16 | header length u32 | payload length u64 | checksum 16 | header | payload
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAGIC = b"\x93MEM3\r\n\x1a"
"""Not text, and broken by every transfer that rewrites line ends or cuts the eighth bit."""
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 65_536
"""A header is some hundred bytes; a longer one is a damaged length."""

_LENGTHS = struct.Struct("<8sHHIQ")
_CHECKSUM_BYTES = 16
PREAMBLE_BYTES = _LENGTHS.size + _CHECKSUM_BYTES

_HEX_DIGITS = frozenset("0123456789abcdef")
_ID_LENGTH = 32
_MAX_REFERENCE_TOKENS = 256

RecordReason = Literal["corrupt", "version", "mismatch"]


class RecordError(ValueError):
    """A record that must not be used. `reason` says why:

    "corrupt" - damaged or not a record at all; "version" - a record of a format this code does not read;
    "mismatch" - a sound record of another reference, model or codec.
    """

    def __init__(self, reason: RecordReason, message: str) -> None:
        super().__init__(message)
        self.reason: RecordReason = reason


@dataclass(frozen=True)
class RecordHeader:
    """What a record says of itself. Raises ValueError on construction if a field is not of its documented form."""

    reference_id: str
    """Which reference: 32 lower-case hex digits."""
    model_fingerprint: str
    """Which model, plan and codec wrote it: 32 lower-case hex digits."""
    codec: tuple[Mapping[str, Any], ...]
    """Descriptions of the codec stages in the order of encoding, each with a `name`."""
    shape: tuple[int, int, int, int]
    """(L, K, S, D): memory layers, KV heads, kept tokens, head dimension."""
    num_reference_tokens: int
    """Tokens of the reference, prefix not counted."""

    def __post_init__(self) -> None:
        for name, value in (("reference_id", self.reference_id), ("model_fingerprint", self.model_fingerprint)):
            if not isinstance(value, str) or len(value) != _ID_LENGTH or not _HEX_DIGITS.issuperset(value):
                raise ValueError(f"record {name} is {value!r}; it is {_ID_LENGTH} lower-case hex digits")
        if not self.codec or not all(isinstance(s, Mapping) and isinstance(s.get("name"), str) for s in self.codec):
            raise ValueError(f"record codec is {self.codec!r}; it is a list of stages, each with a name")
        if len(self.shape) != 4 or not all(type(size) is int and size > 0 for size in self.shape):
            raise ValueError(f"record shape is {self.shape!r}; it is four whole numbers above 0")
        tokens = self.num_reference_tokens
        if type(tokens) is not int or not self.shape[2] <= tokens <= _MAX_REFERENCE_TOKENS:
            raise ValueError(
                f"record num_reference_tokens is {tokens!r}; it is from {self.shape[2]} (the kept tokens) "
                f"to {_MAX_REFERENCE_TOKENS}"
            )

    def to_json_bytes(self) -> bytes:
        """Canonical JSON: equal headers give equal bytes."""
        return _canonical_json(
            {
                "reference_id": self.reference_id,
                "model_fingerprint": self.model_fingerprint,
                "codec": [dict(stage) for stage in self.codec],
                "shape": list(self.shape),
                "num_reference_tokens": self.num_reference_tokens,
            }
        )

    @classmethod
    def from_json_bytes(cls, data: bytes) -> RecordHeader:
        """The header `to_json_bytes` wrote; keys it does not know are ignored. Raises ValueError on any other form."""
        value = json.loads(data)
        if not isinstance(value, dict) or _canonical_json(value) != data:
            raise ValueError("record header is not canonical JSON")
        try:
            return cls(
                reference_id=value["reference_id"],
                model_fingerprint=value["model_fingerprint"],
                codec=tuple(value["codec"]),
                shape=tuple(value["shape"]),
                num_reference_tokens=value["num_reference_tokens"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"record header lacks or misforms a field: {error!r}") from error


def pack_record(header: RecordHeader, payload: bytes) -> bytes:
    """The record of `header` and `payload`; equal arguments give equal bytes. Raises ValueError on a long header."""
    header_bytes = header.to_json_bytes()
    if len(header_bytes) > MAX_HEADER_BYTES:
        raise ValueError(f"record header is {len(header_bytes)} bytes, the limit is {MAX_HEADER_BYTES}; shorten codec")
    lengths = _LENGTHS.pack(MAGIC, FORMAT_VERSION, 0, len(header_bytes), len(payload))
    return b"".join((lengths, _checksum(lengths, header_bytes, payload), header_bytes, payload))


def parse_record(data: bytes | bytearray | memoryview) -> tuple[RecordHeader, memoryview]:
    """Header and payload of a record, after its magic, version, lengths and checksum were verified.

    The payload is a view of `data`, not a copy. Raises RecordError with reason "version" for another version of the
    format, "corrupt" for anything else that is not exactly one sound record.
    """
    view = memoryview(data).cast("B")
    if len(view) < PREAMBLE_BYTES:
        raise RecordError("corrupt", f"record of {len(view)} bytes is cut; the preamble alone has {PREAMBLE_BYTES}")
    magic, version, reserved, header_length, payload_length = _LENGTHS.unpack_from(view)
    if magic != MAGIC:
        raise RecordError("corrupt", f"not a memory record: it begins with {magic!r} in place of {MAGIC!r}")
    if version != FORMAT_VERSION:
        raise RecordError(
            "version", f"record has format version {version}, this code reads {FORMAT_VERSION}; write the memory again"
        )
    expected = PREAMBLE_BYTES + header_length + payload_length
    if reserved or header_length > MAX_HEADER_BYTES or len(view) != expected:
        raise RecordError(
            "corrupt", f"record has {len(view)} bytes, its lengths say {expected}; it was cut, extended or damaged"
        )
    header_bytes = view[PREAMBLE_BYTES : PREAMBLE_BYTES + header_length]
    payload = view[PREAMBLE_BYTES + header_length :]
    stored = bytes(view[_LENGTHS.size : PREAMBLE_BYTES])
    if stored != _checksum(view[: _LENGTHS.size], header_bytes, payload):
        raise RecordError("corrupt", f"checksum of a record of {len(view)} bytes is wrong; it was damaged")
    try:
        return RecordHeader.from_json_bytes(bytes(header_bytes)), payload
    except (ValueError, RecursionError) as error:
        raise RecordError("corrupt", str(error)) from error


def check_identity(header: RecordHeader, reference_id: str, model_fingerprint: str) -> None:
    """Raises RecordError, reason "mismatch", unless the record is this reference's memory written by this model."""
    for name, found, wanted in (
        ("reference_id", header.reference_id, reference_id),
        ("model_fingerprint", header.model_fingerprint, model_fingerprint),
    ):
        if found != wanted:
            raise RecordError("mismatch", f"record has {name} {found}, wanted is {wanted}; write the memory again")


def _checksum(
    lengths: bytes | memoryview, header_bytes: bytes | memoryview, payload: bytes | bytearray | memoryview
) -> bytes:
    digest = hashlib.blake2b(lengths, digest_size=_CHECKSUM_BYTES)
    digest.update(header_bytes)
    digest.update(payload)
    return digest.digest()


def _canonical_json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")
