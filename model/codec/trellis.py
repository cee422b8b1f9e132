"""Stage `trellis`: a vector quantiser with a trained codebook, for a few bytes a vector.

Keys are turned back to position 0, where those of one head look most alike. A token's key and value in one head, which
tell much about each other, lose their mean and are turned together into the directions of the codebook, and the numbers
along them are trellis-coded, each with the bits the codebook gives it. Which directions and how many bits was found by
how much the model's predictions suffer, not by squared error.

Shape letters: L memory layers, K KV heads, S kept tokens, D head dimension, E = 2*D numbers of a key and value, I = E
numbers that they become, A = L*K keys and values of a token, C coded numbers of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.codec.base import Arrays, ArraySpec, ArraysToArrays, Specs
from model.codec.codebook import Codebook
from model.codec.rotation import KeyRotation
from model.codec.trellis_code import MAX_BITS, encode_numbers

_LARGEST_NUMBER = np.float32(1e4)
"""Beyond every level; larger numbers are cut here, so that their squares stay finite."""


@dataclass(frozen=True)
class Trellis(ArraysToArrays):
    """Trellis-coded transform quantisation. Its error has no bound for a single number; docs/benchmarks.md measures it.

    All kept tokens have the same number of bits, so a memory's size does not depend on its content.
    """

    name: ClassVar[str] = "trellis"

    codebook: Codebook

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "codebook": self.codebook.identity}

    def resolve(self, specs: Specs) -> Specs:
        num_layers, num_kv_heads, num_kept, head_dim = specs["keys"].shape
        self._check_shape((num_layers, num_kv_heads, head_dim))
        codes = ArraySpec(np.dtype(np.uint8), (num_kept, -(-self.num_bits // 8)))
        return {"codes": codes, "positions": specs["positions"]}

    def encode(self, arrays: Arrays) -> Arrays:
        keys_LKSD, positions_LKS = arrays["keys"], arrays["positions"]
        self._check_shape((*keys_LKSD.shape[:2], keys_LKSD.shape[3]))
        both_LKSE = np.concatenate((self.rotation.turn_back(keys_LKSD, positions_LKS), arrays["values"]), axis=3)
        both_LKSE -= self.codebook.mean_LKE[..., None, :]
        with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond all levels are cut below
            numbers_LKSI = both_LKSE @ self.codebook.analysis
        numbers_SAI = np.moveaxis(numbers_LKSI, 2, 0).reshape(keys_LKSD.shape[2], -1)
        numbers_SC = np.nan_to_num(numbers_SAI[:, self.coded], nan=0.0)
        np.clip(numbers_SC, -_LARGEST_NUMBER, _LARGEST_NUMBER, out=numbers_SC)
        codes_SC = encode_numbers(numbers_SC, self.bits, self.stride, self.codebook.levels)
        planes = [codes_SC[:, :width] >> np.uint8(plane) & 1 for plane, width in enumerate(self.plane_widths)]
        return {"codes": np.packbits(np.concatenate(planes, axis=1), axis=1), "positions": positions_LKS}

    @property
    def stride(self) -> int:
        """A: how many trellises lie side by side in the numbers of a token."""
        num_layers, num_kv_heads, _ = self.codebook.shape
        return num_layers * num_kv_heads

    @cached_property
    def coded(self) -> NDArray[np.intp]:
        """`[C]`: which of the A*I numbers of a token is coded in which column, those of most bits first."""
        bits_AI = self.codebook.bits_LKI.ravel()
        order = np.argsort(-bits_AI.astype(np.intp), kind="stable")
        return order[: np.count_nonzero(bits_AI)]

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        return self.codebook.bits_LKI.ravel()[self.coded]

    @cached_property
    def columns(self) -> NDArray[np.intp]:
        """`[A*I]`: in which column each number is coded; the column behind the last if it is not."""
        column = np.full(self.codebook.bits_LKI.size, len(self.coded), dtype=np.intp)
        column[self.coded] = np.arange(len(self.coded))
        return column

    @cached_property
    def plane_widths(self) -> list[int]:
        """How many numbers have a bit 0, a bit 1, ...: they are the first columns."""
        return [int((self.bits > plane).sum()) for plane in range(MAX_BITS)]

    @property
    def num_bits(self) -> int:
        return int(self.bits.sum(dtype=np.intp))

    @cached_property
    def rotation(self) -> KeyRotation:
        return self.codebook.origin.rotation(self.codebook.shape[2])

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.codebook.shape:
            raise ValueError(
                f"memory has (layers, KV heads or pages, head dim) {shape}, codebook {self.codebook.identity} was "
                f"trained for {self.codebook.shape}; train one for this model and plan (memory3 quantise)"
            )
