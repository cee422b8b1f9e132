"""Stage `trellis` undone in one launch on a GPU: payloads go in as they were sent, keys and values come out in place.

What its slow twin, `TrellisExpansion`, does in many operations on all tokens, a program of this kernel does for keys
and values of one head and a tile of tokens, with all that lies between in registers. Needs triton, so nothing imports
this file where there is none. With TRITON_INTERPRET=1, set before it is imported, the kernel runs on the processor.

Shape letters: U memories, S kept tokens, T = U*S tokens (in the kernel: of a tile), X bytes of a payload, A = L*K
keys and values of a token, E = 2*D numbers of a key and value, I = E those that are coded, N = A*I numbers of a token,
B bits that decide a number, L memory layers, K KV heads, D head dimension, H its half, R offsets in a reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from model.codec.trellis import Trellis
from model.expansion.trellis import levels_by_index, terms

_SMALL_TILE, _LARGE_TILE = 16, 64
"""Tokens. Small tiles let the memories of one span keep a whole GPU busy; large ones read the tables less often."""
_NUM_WARPS = {_SMALL_TILE: 4, _LARGE_TILE: 8}
_MANY_TOKENS = 1024
"""From so many on, tiles are large."""
_NUMBERS_AT_ONCE = 16


class FusedTrellis:
    """Holds a codebook's tables and the kernel on one device. Compiled here, so that no recall waits for it."""

    def __init__(self, stage: Trellis, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` of the keys and values it gives."""
        book, bit_BN = stage.codebook, _bits_of_numbers(stage)
        table, first_level = levels_by_index(book.levels)
        index_N = first_level[book.bits_LKI.ravel()]
        num_coded_A = np.where(book.bits_LKI > 0, np.arange(1, 2 * book.shape[2] + 1), 0).max(axis=-1).ravel()
        turn_R2H = np.stack(list(stage.rotation.cos_sin), axis=1)
        arrays = (bit_BN, index_N, num_coded_A.astype(np.int32), table, book.reading_basis, book.mean_LKE, turn_R2H)
        self._shape, self._device, self._dtype = book.shape, device, dtype
        self._num_heads, self._token_bytes = stage.stride, -(-stage.num_bits // 8)
        self._bytes_per_token = self._token_bytes + self._num_heads  # a position for each key
        self._tables = [torch.from_numpy(array).to(device) for array in arrays]
        block_H = max(16, triton.next_power_of_2(book.shape[2] // 2))
        self._constants = (stage.stride, len(bit_BN), self._token_bytes, book.shape[2], block_H, _NUMBERS_AT_ONCE)
        self._kernels = {tile: self._compiled(tile) for tile in _NUM_WARPS}
        for tile in _NUM_WARPS:  # what is wrong with them shows now
            self._expanded(torch.zeros(1, self._bytes_per_token, dtype=torch.uint8, device=device), 1, tile)

    def __call__(self, payload_UX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`k_ULKSD`, `v_ULKSD` and `positions_ULKS` of contiguous payloads: views of one new tensor, and of them."""
        num_memories, num_bytes = payload_UX.shape
        num_kept = num_bytes // self._bytes_per_token
        tile = _SMALL_TILE if num_memories * num_kept < _MANY_TOKENS else _LARGE_TILE
        k_ULKSD, v_ULKSD = self._expanded(payload_UX, num_kept, tile).unbind(1)
        return k_ULKSD, v_ULKSD, payload_UX[:, num_kept * self._token_bytes :].view(k_ULKSD.shape[:-1])

    def _expanded(self, payload_UX: Tensor, num_kept: int, tile: int) -> Tensor:
        """`kv_U2LKSD`."""
        num_memories, (num_layers, num_kv_heads, head_dim) = len(payload_UX), self._shape
        shape = (num_memories, 2, num_layers, num_kv_heads, num_kept, head_dim)
        kv_U2LKSD = torch.empty(shape, dtype=self._dtype, device=self._device)
        num_tokens = num_memories * num_kept
        with torch.cuda.device_of(payload_UX):  # triton launches on the current one
            launch = self._kernels[tile][-(-num_tokens // tile), self._num_heads, 1]
            launch(payload_UX, kv_U2LKSD, *self._tables, num_tokens, num_kept, *self._constants, tile)
        return kv_U2LKSD

    def _compiled(self, tile: int) -> Any:
        """For any number of memories and tokens; launched without what `_expand` would look up at every call."""
        arguments = (torch.uint8, self._dtype, *self._tables, 1, 1, *self._constants, tile)
        # A program has few rounds, and what it gathers lies in caches: nothing to fetch ahead in stages.
        options = {"num_warps": _NUM_WARPS[tile], "num_stages": 1}
        with torch.cuda.device_of(self._tables[0]):
            return _expand.warmup(*arguments, grid=(1,), **options) or _expand  # the interpreter compiles nothing


def _bits_of_numbers(stage: Trellis) -> NDArray[np.int32]:
    """`[B, A*I]`: which bit of a token, counted from its first, has which weight in a number's index; -1 is none."""
    parts = [(weight.bit_length() - 1, columns, bits) for columns, bits, weight in terms(stage)]
    bit_BC = np.full((1 + max(power for power, _, _ in parts), len(stage.coded) + 1), -1, dtype=np.int32)
    for power, columns, bits in parts:
        bit_BC[power, columns] = np.arange(bits.start, bits.stop)
    return np.ascontiguousarray(bit_BC[:, stage.columns])


@triton.jit(do_not_specialize=["num_tokens", "num_kept"])  # type: ignore[untyped-decorator]
def _expand(
    payload_UX: tl.tensor,
    kv_U2ASD: tl.tensor,
    bit_BN: tl.tensor,
    index_N: tl.tensor,
    num_coded_A: tl.tensor,
    table: tl.tensor,
    basis_NE: tl.tensor,
    mean_AE: tl.tensor,
    turn_R2H: tl.tensor,
    num_tokens: tl.tensor,
    num_kept: tl.tensor,
    NUM_HEADS: tl.constexpr,
    NUM_BITS: tl.constexpr,
    TOKEN_BYTES: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_T: tl.constexpr,
) -> None:
    HALF: tl.constexpr = HEAD_DIM // 2
    BOTH_DIMS: tl.constexpr = 2 * HEAD_DIM
    head = tl.program_id(1)
    token_T = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    is_token_T = token_T < num_tokens
    memory_T, place_T = (token_T // num_kept).to(tl.int64), token_T % num_kept
    memory_start_T = payload_UX + memory_T * (num_kept * (TOKEN_BYTES + NUM_HEADS))
    codes_1T = (memory_start_T + place_T * TOKEN_BYTES)[None, :]
    half_H = tl.arange(0, BLOCK_H)
    is_half_H = half_H < HALF

    # The key's two halves, which a turn mixes, are summed apart, and so are the value's: all products are of one shape.
    mean_H = mean_AE + head * BOTH_DIMS + half_H
    zeros_TH = tl.full((BLOCK_T, BLOCK_H), 0, tl.float32)
    key_1_TH = zeros_TH + tl.load(mean_H, is_half_H, 0)[None, :]
    key_2_TH = zeros_TH + tl.load(mean_H + HALF, is_half_H, 0)[None, :]
    value_1_TH = zeros_TH + tl.load(mean_H + HEAD_DIM, is_half_H, 0)[None, :]
    value_2_TH = zeros_TH + tl.load(mean_H + HEAD_DIM + HALF, is_half_H, 0)[None, :]
    # Numbers behind the last coded one are 0.
    for start in range(0, tl.load(num_coded_A + head), BLOCK_I):
        number_I = start + tl.arange(0, BLOCK_I)
        is_number_I = number_I < BOTH_DIMS
        number_I += head * BOTH_DIMS
        index_IT = tl.full((BLOCK_I, BLOCK_T), 0, tl.int32) + tl.load(index_N + number_I, is_number_I, 0)[:, None]
        for power in tl.static_range(NUM_BITS):
            bit_I = tl.load(bit_BN + power * (NUM_HEADS * BOTH_DIMS) + number_I, is_number_I, -1)
            is_there_IT = (bit_I >= 0)[:, None] & is_token_T[None, :]
            byte_IT = tl.load(codes_1T + (bit_I >> 3)[:, None], is_there_IT, 0).to(tl.int32)
            index_IT += ((byte_IT >> (7 - (bit_I & 7))[:, None]) & 1) << power
        number_TI = tl.load(table + index_IT).trans()
        basis_IH = basis_NE + number_I[:, None] * BOTH_DIMS + half_H[None, :]
        is_basis_IH = is_number_I[:, None] & is_half_H[None, :]
        key_1_TH = tl.dot(number_TI, tl.load(basis_IH, is_basis_IH, 0), key_1_TH, input_precision="ieee")
        key_2_TH = tl.dot(number_TI, tl.load(basis_IH + HALF, is_basis_IH, 0), key_2_TH, input_precision="ieee")
        basis_IH += HEAD_DIM
        value_1_TH = tl.dot(number_TI, tl.load(basis_IH, is_basis_IH, 0), value_1_TH, input_precision="ieee")
        value_2_TH = tl.dot(number_TI, tl.load(basis_IH + HALF, is_basis_IH, 0), value_2_TH, input_precision="ieee")

    position_T = memory_start_T + num_kept * TOKEN_BYTES + head * num_kept + place_T
    turn_TH = turn_R2H + tl.load(position_T, is_token_T, 0).to(tl.int32)[:, None] * HEAD_DIM + half_H[None, :]
    is_out_TH = is_token_T[:, None] & is_half_H[None, :]
    cos_TH = tl.load(turn_TH, is_out_TH, 1)
    sin_TH = tl.load(turn_TH + HALF, is_out_TH, 0)
    dtype: tl.constexpr = kv_U2ASD.dtype.element_ty
    row_T = (memory_T * (2 * NUM_HEADS) + head) * num_kept + place_T
    out_TH = kv_U2ASD + row_T[:, None] * HEAD_DIM + half_H[None, :]
    tl.store(out_TH, (key_1_TH * cos_TH - key_2_TH * sin_TH).to(dtype), is_out_TH)
    tl.store(out_TH + HALF, (key_2_TH * cos_TH + key_1_TH * sin_TH).to(dtype), is_out_TH)
    out_TH += NUM_HEADS * num_kept * HEAD_DIM
    tl.store(out_TH, value_1_TH.to(dtype), is_out_TH)
    tl.store(out_TH + HALF, value_2_TH.to(dtype), is_out_TH)
