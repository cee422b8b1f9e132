"""The codebook of the trellis stage: data trained for one model and its memory layers, in one safetensors file.

It says how a token's key and value in one head, together 128 numbers, become other 128 numbers, sorted by how much
they matter to the model, with how many bits each of them is kept, and which numbers those bits can mean.
`model/quantisation/` makes it; this file knows only its form, its identity and what it was made for.

Shape letters: L memory layers, K KV heads (or pages of a layer), D head dimension, E = 2*D numbers of a key and value,
I numbers that they become (E of them).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model.codec.rotation import KeyRotation
from model.codec.trellis_code import MAX_BITS, NUM_LEVELS
from model.identity import ID_HEX_DIGITS, canonical_json

CODEBOOK_FILE = "codebook.safetensors"
"""Its name beside a plan or an adapter."""
_METADATA_KEY = "memory3"
_FORMAT = 2
"""1 had a basis for keys and one for values."""
_DOMAIN = b"memory3 codebook v2\0"
_DTYPES = {"basis": np.float32, "bits": np.uint8, "levels": np.float32, "mean": np.float32}


class CodebookError(ValueError):
    """A codebook cannot be used: not readable, malformed, or made for another model or plan."""


@dataclass(frozen=True)
class CodebookOrigin:
    """What a codebook was trained for; memories of anything else it would distort."""

    weights: str
    """Digest of the weights, an adapter's included, as in the model fingerprint."""
    memory_layers: tuple[int, ...]
    rope_theta: float
    """Base of the keys' rotation, which is undone before they are quantised."""
    num_prefix_tokens: int
    """P: the first reference token was rotated at this position."""
    pages_per_head: tuple[tuple[int, ...], ...] = ()
    """Which head's vectors lie in which page, as in the plan."""

    def rotation(self, head_dim: int) -> KeyRotation:
        """How its keys are turned."""
        return KeyRotation(self.rope_theta, self.num_prefix_tokens, head_dim)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Raises CodebookError on construction if the arrays do not fit together. Equal if their identities are."""

    origin: CodebookOrigin
    mean_LKE: NDArray[np.float32]
    """Mean key (not rotated), and behind it mean value."""
    basis_LKIE: NDArray[np.float32]
    """What each number adds to both; they are the mean plus the sum over I of number times basis."""
    bits_LKI: NDArray[np.uint8]
    """Bits of each number, 0 to 8; a number of 0 bits is always 0."""
    levels: NDArray[np.float32]
    """See `trellis_code`: all numbers that codes can mean, of 1 bit, of 2 bits, ..."""
    value_gain: float = 1.0
    """What values are read with, about their mean: what is coded in few bits comes back a little too small."""

    def __post_init__(self) -> None:
        shape = self.mean_LKE.shape
        if len(shape) != 3 or 0 in shape or shape[2] % 4:
            raise CodebookError(f"codebook means have shape {shape}; they are (layers, KV heads, two even head dims)")
        for name, found, wanted in (
            ("basis", self.basis_LKIE.shape, (*shape, shape[2])),
            ("bits", self.bits_LKI.shape, shape),
            ("levels", self.levels.shape, (NUM_LEVELS,)),
        ):
            if found != wanted:
                raise CodebookError(f"codebook {name} have shape {found}, beside means {shape} it must be {wanted}")
        for name, array in self._arrays().items():
            if array.dtype != _DTYPES[name]:
                raise CodebookError(f"codebook {name} are {array.dtype}; give {np.dtype(_DTYPES[name])}")
            if not np.isfinite(array).all():
                raise CodebookError(f"codebook {name} hold a number that is not finite; train it again")
        if int(self.bits_LKI.max()) > MAX_BITS or not self.bits_LKI.any():
            raise CodebookError(f"codebook bits reach {int(self.bits_LKI.max())}; give 0 to {MAX_BITS}, not all 0")
        if not 0.5 <= self.value_gain <= 2:
            raise CodebookError(f"codebook reads values {self.value_gain} times as large; give 0.5 to 2")
        if len(self.origin.memory_layers) != shape[0]:
            raise CodebookError(f"codebook has {shape[0]} layers, its origin names {self.origin.memory_layers}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, K, D)."""
        num_layers, num_kv_heads, both_dims = self.mean_LKE.shape
        return num_layers, num_kv_heads, both_dims // 2

    @property
    def bytes_per_vector(self) -> float:
        """Mean over keys and values, layers and heads."""
        num_layers, num_kv_heads, _ = self.shape
        return float(self.bits_LKI.sum()) / 8 / (2 * num_layers * num_kv_heads)

    @cached_property
    def identity(self) -> str:
        """32 hex digits over all it holds: two codebooks of one identity give equal bytes and equal numbers."""
        digest = hashlib.sha256(_DOMAIN + canonical_json(self._metadata()).encode("ascii"))
        for name, array in sorted(self._arrays().items()):
            digest.update(name.encode("ascii"))
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()[:ID_HEX_DIGITS]

    @cached_property
    def analysis(self) -> NDArray[np.float32]:
        """`[L, K, E, I]`, the inverse of the basis: key and value without their mean, times this, are their numbers."""
        try:
            return np.linalg.inv(self.basis_LKIE.astype(np.float64)).astype(np.float32)
        except np.linalg.LinAlgError as error:
            raise CodebookError(f"a basis of the codebook is singular ({error}); train it again") from error

    @cached_property
    def reading_basis(self) -> NDArray[np.float32]:
        """The basis to read with: its values times their gain."""
        gain_E = np.repeat(np.array([1, self.value_gain], dtype=np.float32), self.shape[2])
        return self.basis_LKIE * gain_E

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def check(self, wanted: CodebookOrigin, shape: tuple[int, int, int]) -> None:
        """Raises CodebookError, naming both sides, unless it was trained for this model and plan of (L, K, D)."""
        pairs = [("(layers, KV heads or pages, head dim)", self.shape, shape)]
        pairs += [(name, getattr(self.origin, name), value) for name, value in asdict(wanted).items()]
        for name, found, value in pairs:
            if found != value:
                raise CodebookError(
                    f"codebook {self.identity} was trained for {name} {found!r}, the model and plan have {value!r}; "
                    "train one for them (memory3 quantise)"
                )

    def save(self, path: Path | str) -> None:
        """Write it; an existing file is replaced at once. Raises OSError."""
        path = Path(path)
        unfinished = path.with_name(path.name + ".tmp")
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        save_file(arrays, unfinished, metadata={_METADATA_KEY: canonical_json(self._metadata())})
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Codebook:
        """The codebook `save` wrote. Raises CodebookError."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
                arrays = {name: file.get_tensor(name) for name in _DTYPES}
            if metadata["format"] != _FORMAT:
                raise CodebookError(
                    f"{path} has codebook format {metadata['format']}, this code reads {_FORMAT}; train one anew "
                    "(memory3 quantise)"
                )
            origin = metadata["origin"]
            pages = tuple(map(tuple, origin.get("pages_per_head", ())))
            return cls(
                CodebookOrigin(**(origin | {"memory_layers": tuple(origin["memory_layers"]), "pages_per_head": pages})),
                arrays["mean"],
                arrays["basis"],
                arrays["bits"],
                arrays["levels"],
                metadata["value_gain"],
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, CodebookError):
                raise
            raise CodebookError(f"{path} is no codebook ({error}); train one (memory3 quantise)") from error

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean_LKE, "basis": self.basis_LKIE, "bits": self.bits_LKI, "levels": self.levels}

    def _metadata(self) -> dict[str, Any]:
        origin = asdict(self.origin)
        if not self.origin.pages_per_head:
            del origin["pages_per_head"]  # codebooks from before there were pages keep their identity
        return {"format": _FORMAT, "origin": origin, "value_gain": self.value_gain}
