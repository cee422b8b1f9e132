"""Stage `trellis` undone: bits are added up to indices, a table gives the numbers, one product keys and values.

The table is indexed by all that decides a number: how many bits it has, the branches that choose its subset, and its
place in the subset. Tokens of all memories stand side by side in the last dimension, so that every step but the product
works on whole rows of them.

Shape letters: U memories, S kept tokens, T = U*S tokens, B bytes of a token, X its bits, C its coded numbers,
A = L*K its keys and values, E = 2*D numbers of a key and value, I = E those that are coded, L memory layers,
K KV heads, D head dimension, R offsets in a reference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.codec.trellis import Trellis
from model.codec.trellis_code import MAX_BITS, SUBSET_OF_WINDOW, TAPS, levels_of


class TrellisExpansion:
    """Holds a codebook's tables on one device."""

    def __init__(self, stage: Trellis, device: torch.device) -> None:
        book = stage.codebook
        table, first_level = levels_by_index(book.levels)
        bits_C = np.append(stage.bits, np.uint8(0))  # the last row: numbers that are not coded
        self._shape = book.shape
        self._terms = list(terms(stage))
        self._table = torch.from_numpy(table).to(device)
        self._first_C1 = torch.from_numpy(first_level[bits_C])[:, None].to(device)
        self._row_of_number = torch.from_numpy(stage.columns.astype(np.int32)).to(device)
        self._shifts_81 = torch.arange(7, -1, -1, dtype=torch.int32, device=device)[:, None]
        self._basis_AIE = torch.from_numpy(book.reading_basis).flatten(0, 1).to(device)
        self._mean_A1E = torch.from_numpy(book.mean_LKE).flatten(0, 1)[:, None].to(device)
        cos, sin = torch.from_numpy(stage.rotation.cos_sin)
        self._turn_R2D = torch.stack((torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)), dim=1).to(device)

    def __call__(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        codes_USB, positions_ULKS = arrays["codes"], arrays["positions"]
        num_memories, num_kept, _ = codes_USB.shape
        num_layers, num_kv_heads, head_dim = self._shape
        number_AIT = self._numbers(codes_USB.flatten(0, 1)).view(-1, 2 * head_dim, num_memories * num_kept)
        both_ATE = torch.baddbmm(self._mean_A1E, number_AIT.transpose(1, 2), self._basis_AIE)
        shape = (num_layers, num_kv_heads, num_memories, num_kept, head_dim)
        key_LKUSD, value_LKUSD = (one_ATD.reshape(shape) for one_ATD in both_ATE.chunk(2, dim=2))
        key_LKUSD = self._turned(key_LKUSD, positions_ULKS.permute(1, 2, 0, 3))
        keys, values = key_LKUSD.permute(2, 0, 1, 3, 4), value_LKUSD.permute(2, 0, 1, 3, 4)
        return {"keys": keys, "values": values, "positions": positions_ULKS}

    def _numbers(self, codes_TB: Tensor) -> Tensor:
        """`[A*I, T]`, those that are not coded included."""
        byte_BT = codes_TB.t().to(torch.int32, memory_format=torch.contiguous_format)
        bit_XT = (byte_BT[:, None] >> self._shifts_81).bitwise_and_(1).flatten(0, 1)
        index_CT = self._first_C1.repeat(1, len(codes_TB))
        for columns, bits, weight in self._terms:
            index_CT[columns].add_(bit_XT[bits], alpha=weight)
        index = index_CT.index_select(0, self._row_of_number)
        return self._table.index_select(0, index.flatten()).view(index.shape)

    def _turned(self, key_LKUSD: Tensor, positions_LKUS: Tensor) -> Tensor:
        """Keys from position 0 to where they were encoded, as `KeyRotation.turn_back` undoes it."""
        turn = self._turn_R2D.index_select(0, positions_LKUS.flatten().int()).view(*key_LKUSD.shape[:-1], 2, -1)
        cos, sin = turn.unbind(-2)
        return torch.addcmul(key_LKUSD * cos, key_LKUSD.roll(key_LKUSD.shape[-1] // 2, dims=-1), sin)


def levels_by_index(levels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The table, and where in it the numbers of 0, 1, ... bits begin; those of 0 bits have one entry, 0.

    Behind its beginning a number stands at its taken branches, one bit each, plus its place in the subset above them.
    """
    windows = sum((np.arange(2 ** len(TAPS)) >> place & 1) << back for place, back in enumerate(TAPS))
    subsets = SUBSET_OF_WINDOW[windows]
    coded = [levels_of(levels, bits).reshape(-1, 4)[:, subsets].ravel() for bits in range(1, MAX_BITS + 1)]
    parts = [np.zeros(1, dtype=np.float32), *coded]
    first_level = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return np.concatenate(parts), first_level.astype(np.int32)


def terms(stage: Trellis) -> Iterator[tuple[slice, slice, int]]:
    """What is added up to indices: to which coded numbers, which bits of the token, times what."""
    num_columns, widths = len(stage.coded), stage.plane_widths
    for place, back in enumerate(TAPS):
        # The lowest plane holds the branches; a number reads those of the numbers `back` strides before it.
        reach = num_columns - back * stage.stride
        if reach > 0:
            yield slice(num_columns - reach, num_columns), slice(0, reach), 1 << place
    start = num_columns
    for plane, width in enumerate(widths[1:]):
        if width:
            yield slice(0, width), slice(start, start + width), 1 << len(TAPS) + plane
        start += width
