"""Records read in numpy, stage by stage as docs/memory-format.md has it: the slow twin of `model.expansion`."""

from __future__ import annotations

from math import prod

import numpy as np

from model.codec.arrays import MemoryArrays
from model.codec.base import VECTOR_ARRAYS, Arrays, ArraysToArrays
from model.codec.chain import CodecChain
from model.codec.floats import Bf16
from model.codec.int4 import Int4
from model.codec.int8 import Int8
from model.codec.packed_memory import PackedMemory
from model.codec.scales import scale_of
from model.codec.trellis import Trellis
from model.codec.trellis_code import MAX_BITS, decode_codes


def slow_read(chain: CodecChain, packed: PackedMemory) -> MemoryArrays:
    """The memory of a record that `chain` unpacked."""
    arrays, start = {}, 0
    for name, spec in packed.specs.items():
        flat = np.frombuffer(packed.payload, spec.dtype, count=prod(spec.shape), offset=start)
        arrays[name] = flat.reshape(spec.shape)
        start += flat.nbytes
    assert start == len(packed.payload)
    for stage in reversed(chain.on_arrays):
        arrays = undone(stage, arrays)
    return MemoryArrays(arrays["keys"], arrays["values"], arrays["positions"], packed.num_reference_tokens)


def undone(stage: ArraysToArrays, arrays: Arrays) -> Arrays:
    """What `stage.encode` was given, within its error."""
    if isinstance(stage, Trellis):
        vectors = _trellis_vectors(stage, arrays)
    else:
        vectors = {name: _vectors(stage, arrays, name) for name in VECTOR_ARRAYS}
    return vectors | {"positions": arrays["positions"]}


def _vectors(stage: ArraysToArrays, arrays: Arrays, name: str) -> np.ndarray:
    codes = arrays[name]
    if isinstance(stage, Bf16):
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if isinstance(stage, Int8):
        return codes.astype(np.float32) * arrays[scale_of(name)].astype(np.float32)[..., None]
    if isinstance(stage, Int4):
        halves = np.stack((codes & 15, codes >> 4), axis=-1).astype(np.float32) - 7
        numbers = halves.reshape(*codes.shape[:-1], -1)
        group = np.arange(numbers.shape[-1]) // stage.group_size
        return numbers * arrays[scale_of(name)].astype(np.float32)[..., group]
    return codes


def _trellis_vectors(stage: Trellis, arrays: Arrays) -> Arrays:
    book, rows = stage.codebook, arrays["codes"]
    tokens = []
    for row in rows:
        numbers = np.zeros(book.bits_LKI.size, dtype=np.float32)
        numbers[stage.coded] = decode_codes(_codes(stage, row)[None], stage.bits, stage.stride, book.levels)[0]
        numbers_LK1I = numbers.reshape(book.mean_LKE.shape)[..., None, :]
        key_LKD, value_LKD = np.split((numbers_LK1I @ book.basis_LKIE)[..., 0, :], 2, axis=-1)
        tokens.append(np.concatenate((key_LKD, book.value_gain * value_LKD), axis=-1) + book.mean_LKE)
    keys, values = np.split(np.stack(tokens, axis=2), 2, axis=-1)
    cos, sin = stage.rotation.cos_sin[:, arrays["positions"]]
    first, second = np.split(keys, 2, axis=-1)
    return {"keys": np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1), "values": values}


def _codes(stage: Trellis, row: np.ndarray) -> np.ndarray:
    stream = iter(np.unpackbits(row))
    codes = np.zeros(len(stage.coded), dtype=np.uint8)
    for plane in range(MAX_BITS):
        for column, bits in enumerate(stage.bits):
            if bits > plane:
                codes[column] |= next(stream) << plane
    return codes
