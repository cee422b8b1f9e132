"""Memories of the trellis stage expanded on the device that reads them: compressed bytes travel, tables lie there.

The same steps as `Trellis.decode`, in torch, for a batch of memories at once. Only gathers, shifts and one product.

Shape letters: U memories, S kept tokens, B bytes of a token, A = 2*L*K vectors of a token, C coded numbers of a token,
I numbers of a vector, L memory layers, K KV heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.codec.trellis import Trellis
from model.codec.trellis_code import MEMORY, SUBSET_OF_WINDOW, first_level


class TrellisExpander:
    """Holds a codebook's tables on one device."""

    def __init__(self, stage: Trellis, device: str | torch.device, dtype: torch.dtype = torch.float32) -> None:
        """`dtype` of the keys and values it gives."""
        book = stage.codebook
        self._stage, self._dtype, self._shape = stage, dtype, book.shape
        self._levels = torch.from_numpy(book.levels).to(device)
        self._first_C = torch.from_numpy(first_level(stage.bits.astype("int32"))).to(device)
        self._subset = torch.from_numpy(SUBSET_OF_WINDOW.astype("int32")).to(device)
        self._columns_AI = torch.from_numpy(stage.columns).to(device)
        self._basis_2LKID = torch.from_numpy(book.basis_2LKID).to(device)
        self._mean_2LK1D = torch.from_numpy(book.mean_2LKD).to(device)[..., None, :]
        self._cos_sin_2R = torch.from_numpy(stage.rotation.cos_sin).to(device)
        self._shifts_8 = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)

    def expand(self, codes_USB: Tensor, positions_ULKS: Tensor) -> tuple[Tensor, Tensor]:
        """`k_ULKSD` and `v_ULKSD` of arrays `codes` and `positions` (uint8, as packed, on the device)."""
        num_memories, num_kept, _ = codes_USB.shape
        num_layers, num_kv_heads, head_dim = self._shape
        code_USC = self._codes(codes_USB)
        branch_USC = code_USC & 1
        window_USC = branch_USC.clone()
        for back in range(1, MEMORY + 1):
            shift = back * self._stage.stride
            if shift < window_USC.shape[2]:
                window_USC[..., shift:] |= branch_USC[..., :-shift] << back
        level_USC = ((code_USC >> 1) << 2) + self._subset[window_USC] + self._first_C
        number_USC = torch.nn.functional.pad(self._levels[level_USC], (0, 1))  # the last column: numbers not coded
        number_US2LKI = number_USC[..., self._columns_AI].view(
            num_memories, num_kept, 2, num_layers, num_kv_heads, head_dim
        )
        vector_U2LKSD = number_US2LKI.permute(0, 2, 3, 4, 1, 5) @ self._basis_2LKID + self._mean_2LK1D
        return self._turned(vector_U2LKSD[:, 0], positions_ULKS).to(self._dtype), vector_U2LKSD[:, 1].to(self._dtype)

    def _codes(self, codes_USB: Tensor) -> Tensor:
        """int32 `[U, S, C]`, from the planes of bits."""
        stream_USX = ((codes_USB[..., None] >> self._shifts_8) & 1).flatten(2)
        code_USC = torch.zeros((*codes_USB.shape[:2], len(self._first_C)), dtype=torch.int32, device=codes_USB.device)
        start = 0
        for plane, width in enumerate(self._stage.plane_widths):
            code_USC[..., :width] |= stream_USX[..., start : start + width].to(torch.int32) << plane
            start += width
        return code_USC

    def _turned(self, key_ULKSD: Tensor, positions_ULKS: Tensor) -> Tensor:
        cos, sin = self._cos_sin_2R[:, positions_ULKS.long()]
        first, second = key_ULKSD.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
