"""Packed and padded layouts of sequences of different lengths."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.packing import PackedLayout

CPU = torch.device("cpu")


def test_drawing_of_the_docstring():
    layout = PackedLayout([3, 2], [1, 0], 4, CPU)
    padded = layout.pad(torch.tensor([1, 2, 3, 4, 5]))
    assert padded.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert layout.is_token().tolist() == [[False, True, True, True], [True, True, False, False]]
    assert layout.place_T.tolist() == [0, 1, 2, 0, 1]
    assert layout.last_B.tolist() == layout.last([1, 1]).tolist() == [2, 4]
    assert layout.last([3, 1]).tolist() == [0, 1, 2, 4]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=6))
def test_unpad_undoes_pad(items: list[tuple[int, int]]):
    lengths, offsets = [length for length, _ in items], [offset for _, offset in items]
    layout = PackedLayout(lengths, offsets, max(map(sum, items)), CPU)
    packed_TX = torch.randn(sum(lengths), 2, 3)
    padded_BWX = layout.pad(packed_TX)
    assert torch.equal(layout.unpad(padded_BWX), packed_TX)
    assert int(layout.is_token().sum()) == sum(lengths)
    for item, (length, offset) in enumerate(items):
        start = sum(lengths[:item])
        assert torch.equal(padded_BWX[item, offset : offset + length], packed_TX[start : start + length])
