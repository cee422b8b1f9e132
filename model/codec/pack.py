"""Stage `pack`: arrays to bytes, one after the other, little-endian, without gaps or lengths of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from model.codec.base import Arrays, ArraysToBytes, Specs


@dataclass(frozen=True)
class Pack(ArraysToBytes):
    """C order, in the order of the names. Dtypes and shapes are not stored: they follow from chain and shape."""

    name: ClassVar[str] = "pack"

    def encode(self, arrays: Arrays) -> bytes:
        return b"".join(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values())


def packed_bytes(specs: Specs) -> int:
    """Size of the packed arrays."""
    return sum(spec.dtype.itemsize * prod(spec.shape) for spec in specs.values())
