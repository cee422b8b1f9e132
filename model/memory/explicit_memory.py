"""One explicit memory as tensors: the kept keys and values of one reference. Knows no codec, no cache and no model.

Shape letters: L memory layers, K pages of a layer in the mean (of most plans one for each KV head: `pages.py`), S kept
tokens of a page, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.codec.arrays import MemoryArrays


@dataclass(frozen=True, eq=False)
class ExplicitMemory:
    """Paper 3.2 and 3.3: what is kept of a reference. Raises ValueError if the shapes do not fit together."""

    k_LKSD: Tensor
    """Keys, already rotated at the positions of encoding; never rotate them again."""
    v_LKSD: Tensor
    """Values."""
    positions_LKS: Tensor
    """uint8: offset in the reference (prefix not counted) of each kept token, ascending along S."""
    num_reference_tokens: int
    """Tokens of the reference, prefix not counted."""
    reference_id: str = ""
    """Whose memory this is; the mathematics never reads it."""

    def __post_init__(self) -> None:
        if self.k_LKSD.ndim != 4 or self.v_LKSD.shape != self.k_LKSD.shape:
            raise ValueError(
                f"keys {tuple(self.k_LKSD.shape)} and values {tuple(self.v_LKSD.shape)} do not fit together; "
                "both are (L, K, S, D)"
            )
        if self.positions_LKS.shape != self.k_LKSD.shape[:3]:
            raise ValueError(
                f"positions {tuple(self.positions_LKS.shape)} do not fit keys {tuple(self.k_LKSD.shape)}; "
                "they are (L, K, S)"
            )

    @property
    def num_kept_tokens(self) -> int:
        """S: the plan's number, or all tokens of a shorter reference."""
        return self.k_LKSD.shape[2]

    def to_arrays(self) -> MemoryArrays:
        """For the codec chain: float32 on the CPU."""
        return MemoryArrays(
            k_LKSD=_float32(self.k_LKSD).numpy(),
            v_LKSD=_float32(self.v_LKSD).numpy(),
            positions_LKS=self.positions_LKS.cpu().numpy(),
            num_reference_tokens=self.num_reference_tokens,
        )


def _float32(values_LKSD: Tensor) -> Tensor:
    """The values as float32 on the CPU, converted one layer at a time.

    A whole memory is large enough for torch to make a pool of threads in the calling thread, which is not the one that
    runs the model; with more pool threads than cores libgomp stops spinning between operations, and a decode step takes
    half as long again.
    """
    if values_LKSD.dtype == torch.float32:
        return values_LKSD.cpu()
    converted_LKSD = torch.empty(values_LKSD.shape, dtype=torch.float32)
    for converted_KSD, values_KSD in zip(converted_LKSD, values_LKSD.cpu(), strict=True):
        converted_KSD.copy_(values_KSD)
    return converted_LKSD
