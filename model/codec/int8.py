"""Stage `int8`: one byte per number and one scale per vector. On the models measured so far it costs no quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.codec.base import VECTOR_ARRAYS, Arrays, ArraySpec, ArraysToArrays, Specs

_LARGEST_CODE = np.float32(127)
_SCALE_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Int8(ArraysToArrays):
    """Absmax quantisation of each vector. Error of each number at most half its vector's scale.

    A scale is absmax / 127, rounded up to `scale_dtype` so that nothing is clipped.
    """

    name: ClassVar[str] = "int8"

    scale_dtype: str = "float16"
    """"float16" (2 bytes a vector) or "float32" (4 bytes, for numbers beyond 8.3e6)."""

    def __post_init__(self) -> None:
        if self.scale_dtype not in _SCALE_DTYPES:
            raise ValueError(f"int8 scale_dtype is {self.scale_dtype!r}; choose one of {', '.join(_SCALE_DTYPES)}")

    def resolve(self, specs: Specs) -> Specs:
        resolved: Specs = {}
        for name, spec in specs.items():
            if name in VECTOR_ARRAYS:
                resolved[name] = ArraySpec(np.dtype(np.int8), spec.shape)
                resolved[_scale_of(name)] = ArraySpec(np.dtype(self.scale_dtype), spec.shape[:-1])
            else:
                resolved[name] = spec
        return resolved

    def encode(self, arrays: Arrays) -> Arrays:
        encoded: Arrays = {}
        for name, array in arrays.items():
            if name in VECTOR_ARRAYS:
                encoded[name], encoded[_scale_of(name)] = self._quantise(name, array)
            else:
                encoded[name] = array
        return encoded

    def decode(self, arrays: Arrays) -> Arrays:
        decoded: Arrays = {}
        for name, array in arrays.items():
            if name in VECTOR_ARRAYS:
                numbers = array.astype(np.float32)
                numbers *= arrays[_scale_of(name)].astype(np.float32)[..., None]
                decoded[name] = numbers
            elif name not in map(_scale_of, VECTOR_ARRAYS):
                decoded[name] = array
        return decoded

    def _quantise(self, name: str, numbers: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[Any]]:
        exact = np.abs(numbers).max(axis=-1) / _LARGEST_CODE
        dtype = np.dtype(self.scale_dtype)
        with np.errstate(over="ignore"):  # an infinite scale is refused below, with a better message
            scale = exact.astype(dtype)
            # A scale rounded down would clip the largest number of its vector.
            scale = np.where(scale.astype(np.float32) < exact, np.nextafter(scale, dtype.type(np.inf)), scale)
        if np.isinf(scale).any():
            raise ValueError(
                f"{name} hold {float(np.abs(numbers).max()):.3g}, more than an int8 vector with a {self.scale_dtype} "
                f"scale can hold ({float(np.finfo(dtype).max) * 127:.3g}); use scale_dtype float32 or the bf16 codec"
            )
        divisor = np.where(scale == 0, 1, scale).astype(np.float32)[..., None]
        return np.rint(numbers / divisor).astype(np.int8), scale


def _scale_of(name: str) -> str:
    return f"{name}.scale"
