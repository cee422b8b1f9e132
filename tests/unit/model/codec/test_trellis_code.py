"""The trellis code against its slow twins: a decoder number by number, and an encoder that tries every path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.codec.trellis_code import MAX_BITS, decode_codes, encode_numbers, levels_of
from model.quantisation.levels import SAMPLE, improve_levels, normal_levels

TABLE = normal_levels()


def slow_decode(codes_C: list[int], bits_C: list[int], stride: int) -> list[float]:
    """As docs/memory-format.md has it."""
    numbers = []
    for column, (code, bits) in enumerate(zip(codes_C, bits_C, strict=True)):
        branches = [codes_C[column - back * stride] & 1 if column >= back * stride else 0 for back in range(6)]
        subset = 2 * ((branches[0] + branches[2] + branches[5]) % 2) + branches[3]
        numbers.append(float(levels_of(TABLE, bits)[4 * (code >> 1) + subset]))
    return numbers


@st.composite
def coded_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    bits = sorted(draw(st.lists(st.integers(1, MAX_BITS), min_size=1, max_size=40)), reverse=True)
    codes = [[draw(st.integers(0, 2**b - 1)) for b in bits] for _ in range(2)]
    return np.array(codes, dtype=np.uint8), np.array(bits, dtype=np.uint8), draw(st.integers(1, 50))


@settings(max_examples=50)
@given(coded_rows())
def test_decoding_equals_its_slow_twin(rows: tuple[np.ndarray, np.ndarray, int]) -> None:
    codes_SC, bits_C, stride = rows
    decoded_SC = decode_codes(codes_SC, bits_C, stride, TABLE)
    assert decoded_SC.dtype == np.float32
    for decoded_C, codes_C in zip(decoded_SC, codes_SC, strict=True):
        assert decoded_C.tolist() == slow_decode(codes_C.tolist(), bits_C.tolist(), stride)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_encoder_finds_the_best_of_all_paths(stride: int) -> None:
    bits = [2, 2, 2, 1, 1, 1, 1]
    numbers_SC = np.random.default_rng(stride).standard_normal((3, len(bits))).astype(np.float32)
    codes_SC = encode_numbers(numbers_SC, np.array(bits, np.uint8), stride, TABLE)
    every = np.array(list(itertools.product(*(range(2**b) for b in bits))), dtype=np.uint8)
    decoded = decode_codes(every, np.array(bits, np.uint8), stride, TABLE)
    for numbers_C, codes_C in zip(numbers_SC, codes_SC, strict=True):
        best = float(((decoded - numbers_C) ** 2).sum(axis=1).min())
        found = np.array(slow_decode(codes_C.tolist(), bits, stride))
        assert float(((found - numbers_C) ** 2).sum()) == pytest.approx(best, rel=1e-5)


@settings(max_examples=30)
@given(st.integers(1, MAX_BITS), st.integers(1, 20), st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_what_was_decoded_is_coded_again_without_loss(bits: int, columns: int, stride: int, seed: int) -> None:
    bits_C = np.full(columns, bits, dtype=np.uint8)
    codes_SC = np.random.default_rng(seed).integers(0, 2**bits, (2, columns)).astype(np.uint8)
    decoded_SC = decode_codes(codes_SC, bits_C, stride, TABLE)
    again_SC = decode_codes(encode_numbers(decoded_SC, bits_C, stride, TABLE), bits_C, stride, TABLE)
    np.testing.assert_array_equal(again_SC, decoded_SC)


@pytest.mark.parametrize(("bits", "error"), [(1, 0.345), (2, 0.1), (3, 0.029), (4, 0.009)])
def test_it_is_better_than_the_best_levels_for_each_number_alone(bits: int, error: float) -> None:
    """Of a normal distribution, number by number at best: 0.363, 0.117, 0.0345 and 0.0095 (Max 1960)."""
    rng, table = np.random.default_rng(0), normal_levels()
    improve_levels(table, bits, rng.standard_normal(SAMPLE).astype(np.float32))
    numbers_SC = rng.standard_normal((16, 640)).astype(np.float32)
    bits_C = np.full(640, bits, dtype=np.uint8)
    decoded_SC = decode_codes(encode_numbers(numbers_SC, bits_C, 10, table), bits_C, 10, table)
    assert float(((decoded_SC - numbers_SC) ** 2).mean()) < error
