"""Sequences of different lengths side by side: packed for linear layers, padded for attention. Knows no model.

Shape letters: T packed tokens of all items, B items, W padded width; `_X` stands for any further dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PackedLayout:
    """Where each packed token stands in a padded `[B, W]` grid.

    packed  a a a b b        padded  . a a a     offsets 1, 0
                                     b b . .     lengths 3, 2
    """

    def __init__(self, lengths: Sequence[int], offsets: Sequence[int], width: int, device: torch.device) -> None:
        """`offsets[i] + lengths[i] <= width` for every item."""
        self.num_items, self.width = len(lengths), width
        lengths_B = torch.tensor(lengths, device=device)
        starts_B = torch.cumsum(lengths_B, 0) - lengths_B
        self.item_T = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths_B)
        self.place_T = torch.arange(sum(lengths), device=device) - starts_B[self.item_T]
        """Index of each packed token within its item."""
        self.last_B = starts_B + lengths_B - 1
        """Packed index of each item's last token."""
        self.offset_B = torch.tensor(offsets, device=device)
        """Column of each item's first token."""
        self._index_T = self.item_T * width + self.offset_B[self.item_T] + self.place_T
        self._is_full = sum(lengths) == len(lengths) * width

    def last(self, counts: Sequence[int]) -> Tensor:
        """Packed indexes of the last `counts[i]` tokens of each item, in order; `last_B` where all counts are 1."""
        if max(counts) == 1:
            return self.last_B
        device = self.last_B.device
        return torch.cat(
            [
                last - count + 1 + torch.arange(count, device=device)
                for last, count in zip(self.last_B, counts, strict=True)
            ]
        )

    def pad(self, packed_TX: Tensor) -> Tensor:
        """`[T, ...] -> [B, W, ...]`, zeros in the gaps; a view where there are none."""
        shape = (self.num_items, self.width, *packed_TX.shape[1:])
        if self._is_full:
            return packed_TX.reshape(shape)
        padded_X = packed_TX.new_zeros(self.num_items * self.width, *packed_TX.shape[1:])
        padded_X[self._index_T] = packed_TX
        return padded_X.view(shape)

    def unpad(self, padded_BWX: Tensor) -> Tensor:
        """`[B, W, ...] -> [T, ...]`."""
        flat_X = padded_BWX.flatten(0, 1)
        # Unlike an index in brackets, this has a way back that sorts nothing.
        return flat_X if self._is_full else flat_X.index_select(0, self._index_T)

    def is_token(self) -> Tensor:
        """bool `[B, W]`: true where a token stands."""
        return self.pad(torch.ones_like(self._index_T, dtype=torch.bool))
