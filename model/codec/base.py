"""What a codec stage is: one of three kinds, told apart by what it takes and gives (as in zarr v3).

    arrays -> arrays      other numbers, other dtypes, more or fewer arrays
    arrays -> bytes       exactly one in a chain
    bytes  -> bytes       after it

A stage is a frozen dataclass whose fields are its parameters, so that its description is data: it goes into every
record's header and into the model fingerprint. What it does to arrays is undone where memories are read, in torch
(`model.expansion`). This file knows no concrete stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
"""Named arrays; the order of the names is the order in the payload."""


class ArraySpec(NamedTuple):
    """Dtype and shape of one array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Specs = dict[str, ArraySpec]
"""What arrays a stage takes or gives, in order; never depends on their content."""

VECTOR_ARRAYS = ("keys", "values")
"""The arrays of vectors along their last axis, float32 at the start of a chain; beside them stand `positions`."""


@dataclass(frozen=True)
class Stage(ABC):
    """A named step of a codec chain; its dataclass fields are its parameters."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The stage as JSON types: its name and its parameters."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class ArraysToArrays(Stage):
    """A stage before packing."""

    @abstractmethod
    def resolve(self, specs: Specs) -> Specs:
        """The specs of what `encode` gives for arrays of these specs."""

    @abstractmethod
    def encode(self, arrays: Arrays) -> Arrays:
        """Raises ValueError if the arrays hold a number this stage cannot store within its error bound."""


@dataclass(frozen=True)
class ArraysToBytes(Stage):
    """The stage that packs arrays."""

    @abstractmethod
    def encode(self, arrays: Arrays) -> bytes:
        """Deterministic: equal arrays give equal bytes."""


@dataclass(frozen=True)
class BytesToBytes(Stage):
    """A stage after packing."""

    @abstractmethod
    def encode(self, data: bytes) -> bytes:
        """Deterministic: equal bytes give equal bytes."""

    @abstractmethod
    def decode(self, data: bytes | memoryview) -> bytes | memoryview:
        """The exact inverse of `encode`. Raises ValueError if `data` cannot have come from it."""
