"""One explicit memory as plain numpy arrays: what the codec chain takes and gives.

Knows shapes and ranges, not how they are stored nor which model they came from.

Shape letters: L memory layers, K KV heads (or pages of a layer, `model.memory.pages`), S kept tokens, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.plan import REFERENCE_TOKENS_LIMIT


@dataclass(frozen=True, eq=False)
class MemoryArrays:
    """The keys and values of one reference's kept tokens. Raises ValueError if shapes or dtypes do not fit together."""

    k_LKSD: NDArray[np.float32]
    """Keys, already rotated (RoPE) at the positions they had when the reference was encoded."""
    v_LKSD: NDArray[np.float32]
    """Values."""
    positions_LKS: NDArray[np.uint8]
    """Offset in the reference (prefix not counted) of each kept token, ascending along S."""
    num_reference_tokens: int
    """Tokens of the reference, prefix not counted, 1 to 256."""

    def __post_init__(self) -> None:
        if self.k_LKSD.ndim != 4 or 0 in self.k_LKSD.shape:
            raise ValueError(f"keys have shape {self.k_LKSD.shape}; give (layers, KV heads, tokens, head dim), none 0")
        if self.v_LKSD.shape != self.k_LKSD.shape or self.positions_LKS.shape != self.k_LKSD.shape[:3]:
            raise ValueError(
                f"keys {self.k_LKSD.shape}, values {self.v_LKSD.shape} and positions {self.positions_LKS.shape} do not "
                "fit together; keys and values are (L, K, S, D), positions (L, K, S)"
            )
        for name, array, dtype in (
            ("keys", self.k_LKSD, np.float32),
            ("values", self.v_LKSD, np.float32),
            ("positions", self.positions_LKS, np.uint8),
        ):
            if array.dtype != dtype:
                raise ValueError(f"{name} are {array.dtype}; give {np.dtype(dtype)}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(L, K, S, D)."""
        num_layers, num_kv_heads, num_kept, head_dim = self.k_LKSD.shape
        return num_layers, num_kv_heads, num_kept, head_dim

    def check_content(self) -> None:
        """Raises ValueError if a number is not finite or a position cannot be: what a writer must never store."""
        for name, array in (("keys", self.k_LKSD), ("values", self.v_LKSD)):
            finite = np.isfinite(array)
            if not finite.all():
                place = tuple(int(i) for i in np.argwhere(~finite)[0])
                raise ValueError(
                    f"{name} hold {array[place]} at (layer, head, token, dim) {place}; a memory must be finite: "
                    "check the weights and the dtype the reference was encoded in"
                )
        num_kept = self.shape[2]
        if not num_kept <= self.num_reference_tokens <= REFERENCE_TOKENS_LIMIT:
            raise ValueError(
                f"{num_kept} kept tokens of a reference of {self.num_reference_tokens}; a reference has at least the "
                f"tokens it keeps and at most {REFERENCE_TOKENS_LIMIT}"
            )
        if int(self.positions_LKS.max()) >= self.num_reference_tokens:
            raise ValueError(
                f"position {int(self.positions_LKS.max())} in a reference of {self.num_reference_tokens} tokens; "
                "positions count from 0 and leave the prefix out"
            )
        if (np.diff(self.positions_LKS.astype(np.int16), axis=2) <= 0).any():
            raise ValueError("positions along S are not strictly ascending; sort the kept tokens before storing them")
