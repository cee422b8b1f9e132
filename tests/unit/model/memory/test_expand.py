"""Expansion on the device equals decoding in numpy, memory by memory."""

from __future__ import annotations

import numpy as np
import torch

from model.codec.arrays import MemoryArrays
from model.codec.chain import CodecChain
from model.codec.pack import Pack
from model.codec.trellis import Trellis
from model.memory.expand import TrellisExpander
from tests.helpers.codebooks import KEY_SIZE, a_codebook


def test_a_batch_is_expanded_as_each_record_is_decoded() -> None:
    stage = Trellis(a_codebook(least_bits=0))
    chain, rng = CodecChain((stage, Pack())), np.random.default_rng(0)
    records, decoded = [], []
    for number in range(3):
        keys = KEY_SIZE * rng.standard_normal((3, 2, 5, 16), dtype=np.float32)
        positions = np.sort(np.argsort(rng.random((3, 2, 99)), axis=2)[..., :5], axis=2).astype(np.uint8)
        memory = MemoryArrays(keys, keys / KEY_SIZE, positions, 100)
        records.append(chain.encode(memory, f"{number:032x}", "f" * 32))
        decoded.append(chain.decode(records[-1], f"{number:032x}", "f" * 32))
    packed = [chain.unpack(record, f"{number:032x}", "f" * 32)[1] for number, record in enumerate(records)]
    codes_USB, positions_ULKS = (
        torch.from_numpy(np.stack([a[name] for a in packed])) for name in ("codes", "positions")
    )
    k_ULKSD, v_ULKSD = TrellisExpander(stage, "cpu").expand(codes_USB, positions_ULKS)
    np.testing.assert_allclose(k_ULKSD.numpy(), np.stack([m.k_LKSD for m in decoded]), atol=1e-4)
    np.testing.assert_allclose(v_ULKSD.numpy(), np.stack([m.v_LKSD for m in decoded]), atol=1e-5)
    half, _ = TrellisExpander(stage, "cpu", torch.bfloat16).expand(codes_USB, positions_ULKS)
    assert half.dtype is torch.bfloat16
