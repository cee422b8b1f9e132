"""Stage `int8`: one byte per number and one scale per vector. On the models measured so far it costs no quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model.codec.base import VECTOR_ARRAYS, Arrays, ArraySpec, ArraysToArrays, Specs
from model.codec.scales import check_scale_dtype, codes_of, scale_of, scales_of

_LARGEST_CODE = 127


@dataclass(frozen=True)
class Int8(ArraysToArrays):
    """Absmax quantisation of each vector. Error of each number at most half its vector's scale.

    A scale is absmax / 127, rounded up to `scale_dtype` so that nothing is clipped.
    """

    name: ClassVar[str] = "int8"

    scale_dtype: str = "float16"
    """"float16" (2 bytes a vector) or "float32" (4 bytes, for numbers beyond 8.3e6)."""

    def __post_init__(self) -> None:
        check_scale_dtype(self.name, self.scale_dtype)

    def resolve(self, specs: Specs) -> Specs:
        resolved: Specs = {}
        for name, spec in specs.items():
            if name in VECTOR_ARRAYS:
                resolved[name] = ArraySpec(np.dtype(np.int8), spec.shape)
                resolved[scale_of(name)] = ArraySpec(np.dtype(self.scale_dtype), spec.shape[:-1])
            else:
                resolved[name] = spec
        return resolved

    def encode(self, arrays: Arrays) -> Arrays:
        encoded: Arrays = {}
        for name, array in arrays.items():
            if name in VECTOR_ARRAYS:
                scale = scales_of(array, _LARGEST_CODE, self.scale_dtype, self.name, name)
                encoded[name], encoded[scale_of(name)] = codes_of(array, scale), scale
            else:
                encoded[name] = array
        return encoded
