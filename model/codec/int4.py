"""Stage `int4`: half a byte per number and one scale for each group of numbers of a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.codec.base import VECTOR_ARRAYS, Arrays, ArraySpec, ArraysToArrays, Specs
from model.codec.scales import check_scale_dtype, codes_of, scale_of, scales_of

_LARGEST_CODE = 7


@dataclass(frozen=True)
class Int4(ArraysToArrays):
    """Absmax quantisation of groups of neighbouring numbers. Error of each number at most half its group's scale.

    A scale is absmax / 7, rounded up to `scale_dtype` so that nothing is clipped. The last group of a vector is shorter
    where `group_size` does not divide the head dimension, which must be even.
    """

    name: ClassVar[str] = "int4"

    group_size: int = 16
    """Numbers that share a scale; at least 1. Smaller is more exact and larger."""
    scale_dtype: str = "float16"
    """"float16" (2 bytes a group) or "float32" (4 bytes, for numbers beyond 4.6e5)."""

    def __post_init__(self) -> None:
        if type(self.group_size) is not int or self.group_size < 1:
            raise ValueError(f"int4 group_size is {self.group_size!r}; give a whole number of at least 1")
        check_scale_dtype(self.name, self.scale_dtype)

    def resolve(self, specs: Specs) -> Specs:
        resolved: Specs = {}
        for name, spec in specs.items():
            if name in VECTOR_ARRAYS:
                *leading, head_dim = spec.shape
                num_groups = -(-head_dim // self.group_size)
                resolved[name] = ArraySpec(np.dtype(np.uint8), (*leading, _half(head_dim)))
                resolved[scale_of(name)] = ArraySpec(np.dtype(self.scale_dtype), (*leading, num_groups))
            else:
                resolved[name] = spec
        return resolved

    def encode(self, arrays: Arrays) -> Arrays:
        encoded: Arrays = {}
        for name, array in arrays.items():
            if name in VECTOR_ARRAYS:
                encoded[name], encoded[scale_of(name)] = self._quantise(name, array)
            else:
                encoded[name] = array
        return encoded

    def _quantise(self, name: str, numbers: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
        *leading, head_dim = numbers.shape
        _half(head_dim)
        gap = -head_dim % self.group_size
        padded = np.pad(numbers, [(0, 0)] * len(leading) + [(0, gap)])  # zeros change no group's absmax
        groups = padded.reshape(*leading, -1, self.group_size)
        scale = scales_of(groups, _LARGEST_CODE, self.scale_dtype, self.name, name)
        codes = codes_of(groups, scale).reshape(*leading, -1)[..., :head_dim]
        nibbles = (codes + _LARGEST_CODE).astype(np.uint8)
        return nibbles[..., 0::2] | (nibbles[..., 1::2] << np.uint8(4)), scale


def _half(head_dim: int) -> int:
    if head_dim % 2:
        raise ValueError(f"int4 packs two numbers in a byte and the head dimension is {head_dim}; use the int8 codec")
    return head_dim // 2


def _number_pairs() -> NDArray[np.float32]:
    codes = np.arange(256)
    return (np.stack((codes & 15, codes >> 4), axis=-1) - _LARGEST_CODE).astype(np.float32)


NUMBERS_OF_BYTE = _number_pairs()
"""The two codes in each byte, the low half first; a half of 15, which is never written, reads as 8."""
