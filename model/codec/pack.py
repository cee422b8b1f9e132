"""Stage `pack`: arrays to bytes, one after the other, little-endian, without gaps or lengths of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from model.codec.base import Arrays, ArraysToBytes, Specs


@dataclass(frozen=True)
class Pack(ArraysToBytes):
    """C order, in the order of the names. Dtypes and shapes are not stored: they follow from chain and shape."""

    name: ClassVar[str] = "pack"

    def encode(self, arrays: Arrays) -> bytes:
        return b"".join(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values())

    def decode(self, data: bytes | memoryview, specs: Specs) -> Arrays:
        expected = packed_bytes(specs)
        if len(data) != expected:
            raise ValueError(f"payload has {len(data)} bytes, its shape and codec ask for {expected}")
        arrays: Arrays = {}
        offset = 0
        for name, spec in specs.items():
            count = prod(spec.shape)
            flat = np.frombuffer(data, dtype=spec.dtype.newbyteorder("<"), count=count, offset=offset)
            arrays[name] = flat.reshape(spec.shape)
            offset += flat.nbytes
        return arrays


def packed_bytes(specs: Specs) -> int:
    """Size of the packed arrays."""
    return sum(spec.dtype.itemsize * prod(spec.shape) for spec in specs.values())
