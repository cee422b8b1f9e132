"""Stages that keep keys and values as floating point: `fp32` exactly, `bf16` rounded to nearest even."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from model.codec.base import VECTOR_ARRAYS, Arrays, ArraySpec, ArraysToArrays, Specs

_EXPONENT_BITS = np.uint16(0x7F80)


@dataclass(frozen=True)
class Fp32(ArraysToArrays):
    """Keeps every bit: for exactness tests and for measuring what the other stages lose."""

    name: ClassVar[str] = "fp32"

    def resolve(self, specs: Specs) -> Specs:
        return specs

    def encode(self, arrays: Arrays) -> Arrays:
        return arrays


@dataclass(frozen=True)
class Bf16(ArraysToArrays):
    """The upper half of each float32, as uint16. Error at most 2**-8 of the number (2**-134 near zero)."""

    name: ClassVar[str] = "bf16"

    def resolve(self, specs: Specs) -> Specs:
        uint16 = np.dtype(np.uint16)
        return {name: ArraySpec(uint16, spec.shape) if name in VECTOR_ARRAYS else spec for name, spec in specs.items()}

    def encode(self, arrays: Arrays) -> Arrays:
        return {name: _to_bf16(name, array) if name in VECTOR_ARRAYS else array for name, array in arrays.items()}


def _to_bf16(name: str, numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    # Half of the last kept bit, less one when that bit is 0: ties go to even. Finite numbers cannot carry past 32 bits.
    rounded = ((bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)) >> np.uint32(16)).astype(np.uint16)
    if ((rounded & _EXPONENT_BITS) == _EXPONENT_BITS).any():
        raise ValueError(f"{name} hold a number beyond bf16's largest, 3.39e38; store them with the fp32 codec")
    return rounded
