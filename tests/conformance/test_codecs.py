"""What every codec chain must keep, run against each of them, and the exact error bound of each stage."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.codec.arrays import MemoryArrays
from model.codec.base import Arrays, BytesToBytes
from model.codec.chain import STAGES, CodecChain, stage_from_dict
from model.codec.floats import Bf16, Fp32
from model.codec.int4 import Int4
from model.codec.int8 import Int8
from model.codec.pack import Pack
from model.codec.record import RecordError, parse_record
from model.codec.trellis import Trellis
from model.plan import MemoryPlan
from tests.helpers.codebooks import a_codebook
from tests.helpers.records import expanded, read

REFERENCE_ID, FINGERPRINT = "0" * 32, "1" * 32


@dataclass(frozen=True)
class Deflate(BytesToBytes):
    """A stage on bytes, to prove that the chain has a place for one."""

    name: ClassVar[str] = "deflate"

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes | memoryview) -> bytes:
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise ValueError(f"payload is no deflate stream: {error}") from error


CHAINS = {
    "fp32": CodecChain((Fp32(), Pack())),
    "bf16": CodecChain((Bf16(), Pack())),
    "int8": CodecChain((Int8(), Pack())),
    "int8-float32": CodecChain((Int8("float32"), Pack())),
    "int4": CodecChain((Int4(), Pack())),
    "int4-groups-of-7": CodecChain((Int4(7, "float32"), Pack())),
    "trellis": CodecChain((Trellis(a_codebook()), Pack())),
    "bf16-deflate": CodecChain((Bf16(), Pack(), Deflate())),
    "pack": CodecChain((Pack(),)),
}
LARGEST_ERROR = {"int4": 0.085, "int4-groups-of-7": 0.085, "trellis": 0.15}
"""Share of a vector's largest number that its decoded numbers may be off; 0.006 for all others."""
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


def plan(*codec: str) -> MemoryPlan:
    return MemoryPlan("test", (0,), 8, "attention", "sum", codec=codec)


def a_memory(num_layers: int = 3, num_heads: int = 2, num_kept: int = 5, head_dim: int = 16) -> MemoryArrays:
    rng = np.random.default_rng(num_layers * 1000 + num_kept)
    shape = (num_layers, num_heads, num_kept, head_dim)
    offsets = np.argsort(rng.random((num_layers, num_heads, 100)), axis=2)[..., :num_kept]
    return MemoryArrays(
        rng.standard_normal(shape, dtype=np.float32) * 10,
        rng.standard_normal(shape, dtype=np.float32),
        np.sort(offsets, axis=2).astype(np.uint8),
        num_reference_tokens=100,
    )


def fitting(chain: CodecChain, sizes: tuple[int, int, int, int]) -> CodecChain:
    """The chain itself, or with a codebook for memories of these sizes if it has one for others."""
    if not isinstance(chain.stages[0], Trellis):
        return chain
    return CodecChain((Trellis(a_codebook(*sizes[:2], sizes[3])), *chain.stages[1:]))


def round_trip(chain: CodecChain, memory: MemoryArrays) -> MemoryArrays:
    return read(chain, chain.encode(memory, REFERENCE_ID, FINGERPRINT), REFERENCE_ID, FINGERPRINT)


@each_chain
@pytest.mark.parametrize("sizes", [(3, 2, 5, 16), (1, 1, 1, 2), (15, 3, 32, 64)])
def test_shape_positions_and_dtypes_survive(chain: CodecChain, sizes: tuple[int, int, int, int]) -> None:
    memory = a_memory(*sizes)
    back = round_trip(fitting(chain, sizes), memory)
    assert back.shape == memory.shape == sizes
    assert back.num_reference_tokens == 100
    np.testing.assert_array_equal(back.positions_LKS, memory.positions_LKS)
    assert back.k_LKSD.dtype == back.v_LKSD.dtype == np.float32
    bound = LARGEST_ERROR.get(next(key for key, value in CHAINS.items() if value is chain), 0.006)
    for decoded, numbers in ((back.k_LKSD, memory.k_LKSD), (back.v_LKSD, memory.v_LKSD)):
        assert (np.abs(decoded - numbers).max(axis=3) <= bound * np.abs(numbers).max(axis=3)).all()


@each_chain
def test_equal_memories_give_equal_bytes_however_they_lie_in_memory(chain: CodecChain) -> None:
    memory = a_memory()
    strided = MemoryArrays(
        np.asfortranarray(memory.k_LKSD),
        np.concatenate([memory.v_LKSD, memory.v_LKSD], axis=3)[..., :16],
        np.asfortranarray(memory.positions_LKS),
        memory.num_reference_tokens,
    )
    assert not strided.k_LKSD.flags.c_contiguous
    assert not strided.v_LKSD.flags.c_contiguous
    assert chain.encode(strided, REFERENCE_ID, FINGERPRINT) == chain.encode(memory, REFERENCE_ID, FINGERPRINT)


@each_chain
def test_a_second_trip_loses_nothing_more(chain: CodecChain) -> None:
    once = round_trip(chain, a_memory())
    twice = round_trip(chain, once)
    tolerance = 1e-3 if {"int8", "int4", "trellis"} & {stage.name for stage in chain.stages} else 0
    np.testing.assert_allclose(twice.k_LKSD, once.k_LKSD, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(twice.v_LKSD, once.v_LKSD, rtol=tolerance, atol=tolerance)


@each_chain
def test_a_packed_memory_is_free_of_the_record(chain: CodecChain) -> None:
    """The receive buffer may be used again."""
    record = chain.encode(a_memory(), REFERENCE_ID, FINGERPRINT)
    buffer = bytearray(record)
    packed = chain.unpack(memoryview(buffer), REFERENCE_ID, FINGERPRINT)
    buffer[:] = bytes(len(buffer))
    assert packed.payload == chain.unpack(record, REFERENCE_ID, FINGERPRINT).payload
    assert (packed.shape, packed.reference_id) == ((3, 2, 5, 16), REFERENCE_ID)


@each_chain
def test_header_and_description_say_the_same(chain: CodecChain) -> None:
    header, _ = parse_record(chain.encode(a_memory(), REFERENCE_ID, FINGERPRINT))
    assert list(header.codec) == chain.describe()
    assert (header.shape, header.num_reference_tokens) == ((3, 2, 5, 16), 100)


@each_chain
def test_size_is_known_beforehand(chain: CodecChain) -> None:
    chain = fitting(chain, (15, 3, 32, 64))
    size = len(chain.encode(a_memory(15, 3, 32, 64), REFERENCE_ID, FINGERPRINT))
    bound = chain.record_bytes((15, 3, 32, 64), 100)
    assert size == bound or (isinstance(chain.stages[-1], Deflate) and size < bound)


@each_chain
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["k_LKSD", "v_LKSD"])
def test_a_number_that_is_not_finite_is_never_stored(chain: CodecChain, bad: float, which: str) -> None:
    memory = a_memory()
    getattr(memory, which)[1, 0, 2, 3] = bad
    with pytest.raises(ValueError, match=r"\(1, 0, 2, 3\)"):
        chain.encode(memory, REFERENCE_ID, FINGERPRINT)


@each_chain
def test_a_payload_of_another_length_is_corrupt(chain: CodecChain) -> None:
    """Sealed by somebody with a right checksum, and still not a memory of this shape."""
    from model.codec.record import pack_record

    header, payload = parse_record(chain.encode(a_memory(), REFERENCE_ID, FINGERPRINT))
    for wrong in (bytes(payload)[:-1], b"", bytes(payload) * 2 if chain.stages[-1].name == "pack" else b"x"):
        with pytest.raises(RecordError) as caught:
            chain.unpack(pack_record(header, wrong), REFERENCE_ID, FINGERPRINT)
        assert caught.value.reason == "corrupt"


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, (1, 1, 1, 8), elements=float32s)


def one_memory(vector: np.ndarray) -> MemoryArrays:
    return MemoryArrays(vector, np.zeros_like(vector), np.zeros((1, 1, 1), np.uint8), num_reference_tokens=1)


def arrays_of(vector: np.ndarray) -> Arrays:
    return {"keys": vector, "values": vector, "positions": np.zeros(vector.shape[:3], np.uint8)}


@given(vectors)
def test_fp32_keeps_every_bit(vector: np.ndarray) -> None:
    assert round_trip(CHAINS["fp32"], one_memory(vector)).k_LKSD.tobytes() == vector.tobytes()


@settings(max_examples=300)
@given(vectors)
def test_bf16_rounds_as_torch_does_and_within_its_bound(vector: np.ndarray) -> None:
    expected = torch.from_numpy(vector).bfloat16().float().numpy()
    if np.isinf(expected).any():
        with pytest.raises(ValueError, match="bf16's largest"):
            round_trip(CHAINS["bf16"], one_memory(vector))
        return
    decoded = round_trip(CHAINS["bf16"], one_memory(vector)).k_LKSD
    assert decoded.tobytes() == expected.tobytes()
    error = np.abs(decoded.astype(np.float64) - vector)
    assert (error <= np.maximum(2.0**-8 * np.abs(vector.astype(np.float64)), 2.0**-134)).all()


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (1 + 2**-8, 1.0),  # tie: 1 has the even last bit
        (1 + 3 * 2**-8, 1 + 2**-6),  # tie: up to the even one
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-(1 + 2**-8), -1.0),
        (-0.0, -0.0),
    ],
)
def test_bf16_ties_go_to_even(number: float, kept: float) -> None:
    vector = np.full((1, 1, 1, 8), number, dtype=np.float32)
    decoded = round_trip(CHAINS["bf16"], one_memory(vector)).k_LKSD
    assert decoded.tobytes() == np.full((1, 1, 1, 8), kept, dtype=np.float32).tobytes()


@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@settings(max_examples=300)
@given(vector=hnp.arrays(np.float32, (1, 1, 1, 8), elements=float32s), magnitude=st.integers(-60, 20))
def test_int8_error_is_at_most_half_a_scale(scale_dtype: str, vector: np.ndarray, magnitude: int) -> None:
    absmax = float(np.abs(vector).max())
    if absmax > 0:  # else most drawn vectors are far too large for a float16 scale
        vector = (vector.astype(np.float64) / absmax * 2.0**magnitude).astype(np.float32)
    stage = Int8(scale_dtype)
    encoded = stage.encode(arrays_of(vector))
    exact_scale = float(np.abs(vector).max()) / 127
    scale = float(encoded["keys.scale"][0, 0, 0])
    step = float(np.spacing(encoded["keys.scale"])[0, 0, 0])
    assert exact_scale * (1 - 1e-7) <= scale <= exact_scale * (1 + 1e-7) + step
    decoded = expanded(stage, encoded)["keys"]
    assert decoded.dtype == np.float32
    error = np.abs(decoded.astype(np.float64) - vector).max()
    assert error <= scale / 2 + 127 * scale * 2.0**-22  # the second term: float32 arithmetic


def test_int8_uses_the_whole_range_and_nothing_is_clipped() -> None:
    vector = np.array([[[[1.0, -1.0, 0.5, 0.0]]]], dtype=np.float32)
    encoded = Int8().encode(arrays_of(vector))
    assert encoded["keys"].ravel().tolist() == [127, -127, 63, 0]
    assert float(encoded["keys.scale"][0, 0, 0]) >= 1 / 127


def test_int8_keeps_zero_vectors_and_scales_each_vector_by_itself() -> None:
    vector = np.zeros((1, 1, 3, 4), dtype=np.float32)
    vector[0, 0, 1] = 1e-3
    vector[0, 0, 2] = 1e3
    memory = MemoryArrays(vector, vector, np.arange(3, dtype=np.uint8).reshape(1, 1, 3), 3)
    back = round_trip(CHAINS["int8"], memory).k_LKSD
    np.testing.assert_array_equal(back[0, 0, 0], 0)
    np.testing.assert_allclose(back[0, 0, 1:], vector[0, 0, 1:], rtol=5e-3)


def test_int8_refuses_what_its_scale_cannot_hold_and_names_the_remedy() -> None:
    huge = one_memory(np.full((1, 1, 1, 8), 1e7, dtype=np.float32))
    with pytest.raises(ValueError, match=r"keys hold 1e\+07.*scale_dtype float32"):
        round_trip(CHAINS["int8"], huge)
    np.testing.assert_allclose(round_trip(CHAINS["int8-float32"], huge).k_LKSD, huge.k_LKSD, rtol=1e-6)


@pytest.mark.parametrize("stage", [Int4(), Int4(3), Int4(1), Int4(16, "float32")], ids=str)
@settings(max_examples=100)
@given(numbers=hnp.arrays(np.float32, (1, 1, 2, 10), elements=float32s), magnitude=st.integers(-60, 16))
def test_int4_equals_its_slow_twin_and_keeps_its_bound(stage: Int4, numbers: np.ndarray, magnitude: int) -> None:
    absmax = float(np.abs(numbers).max())
    if absmax > 0:
        numbers = (numbers.astype(np.float64) / absmax * 2.0**magnitude).astype(np.float32)
    encoded = stage.encode(arrays_of(numbers))
    decoded = expanded(stage, encoded)["keys"]
    assert decoded.dtype == np.float32
    for token in range(2):
        for dim in range(10):
            group = slice(dim // stage.group_size * stage.group_size, (dim // stage.group_size + 1) * stage.group_size)
            scale = float(encoded["keys.scale"][0, 0, token, dim // stage.group_size])
            byte = int(encoded["keys"][0, 0, token, dim // 2])
            code = (byte >> 4 if dim % 2 else byte & 15) - 7
            assert scale * 7 >= float(np.abs(numbers[0, 0, token, group]).max()) * (1 - 1e-6)
            assert decoded[0, 0, token, dim] == np.float32(code) * np.float32(scale)
            assert abs(code * scale - float(numbers[0, 0, token, dim])) <= scale / 2 * (1 + 1e-5)


def test_int4_uses_the_whole_range_of_each_group() -> None:
    vector = np.array([[[[7.0, -7.0, 3.0, 0.0, 0.7, -0.7, 0.1, 0.0]]]], dtype=np.float32)
    decoded = expanded(Int4(4), Int4(4).encode(arrays_of(vector)))["values"]
    np.testing.assert_allclose(decoded, vector, atol=2e-3)


def test_int4_refuses_an_odd_head_dimension() -> None:
    with pytest.raises(ValueError, match="head dimension is 5"):
        round_trip(CHAINS["int4"], a_memory(1, 1, 1, 5))


def test_positions_that_cannot_be_are_refused() -> None:
    memory = a_memory()
    memory.positions_LKS[0, 0] = memory.positions_LKS[0, 0][::-1].copy()
    with pytest.raises(ValueError, match="ascending"):
        CHAINS["fp32"].encode(memory, REFERENCE_ID, FINGERPRINT)
    memory = a_memory()
    memory.positions_LKS[0, 0, -1] = 100
    with pytest.raises(ValueError, match="position 100 in a reference of 100"):
        CHAINS["fp32"].encode(memory, REFERENCE_ID, FINGERPRINT)


@pytest.mark.parametrize("num_reference_tokens", [4, 257])
def test_token_counts_that_cannot_be_are_refused(num_reference_tokens: int) -> None:
    good = a_memory()
    memory = MemoryArrays(good.k_LKSD, good.v_LKSD, good.positions_LKS, num_reference_tokens)
    with pytest.raises(ValueError, match=f"a reference of {num_reference_tokens}"):
        CHAINS["fp32"].encode(memory, REFERENCE_ID, FINGERPRINT)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    good = a_memory()
    with pytest.raises(ValueError, match="do not fit"):
        MemoryArrays(good.k_LKSD, good.v_LKSD[:1], good.positions_LKS, 100)
    with pytest.raises(ValueError, match="do not fit"):
        MemoryArrays(good.k_LKSD, good.v_LKSD, good.positions_LKS[..., :1], 100)
    with pytest.raises(ValueError, match="float64"):
        MemoryArrays(good.k_LKSD.astype(np.float64), good.v_LKSD, good.positions_LKS, 100)
    with pytest.raises(ValueError, match="none 0"):
        MemoryArrays(good.k_LKSD[:, :, :0], good.v_LKSD[:, :, :0], good.positions_LKS[:, :, :0], 100)


@pytest.mark.parametrize("name", [name for name in STAGES if name != "pack"])
def test_a_plan_need_not_name_pack(name: str) -> None:
    chain = CodecChain.from_plan(plan(name), a_codebook())
    assert chain == CodecChain.from_plan(plan(name, "pack"), a_codebook())
    assert [stage.name for stage in chain.stages] == [name, "pack"]


@pytest.mark.parametrize("chain", [c for key, c in CHAINS.items() if key != "bf16-deflate"])
def test_a_chain_is_rebuilt_from_its_description(chain: CodecChain) -> None:
    assert CodecChain.from_description(chain.describe(), a_codebook()) == chain


def test_every_stage_is_rebuilt_from_its_description() -> None:
    plain = [kind() for name, kind in STAGES.items() if name != "trellis"]
    for stage in (*plain, Int8("float32"), Int4(32, "float32"), Trellis(a_codebook())):
        assert stage_from_dict(stage.to_dict(), a_codebook()) == stage


def test_a_stage_that_needs_a_codebook_takes_the_one_it_names() -> None:
    with pytest.raises(ValueError, match="needs a codebook"):
        CodecChain.from_plan(plan("trellis"))
    described = Trellis(a_codebook()).to_dict()
    assert described == {"name": "trellis", "codebook": a_codebook().identity}
    with pytest.raises(ValueError, match=a_codebook(3, 2, 8).identity):
        stage_from_dict(described, a_codebook(3, 2, 8))


def test_a_memory_of_other_shapes_than_the_codebook_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2, 8\).*trained for \(3, 2, 16\)"):
        CHAINS["trellis"].encode(a_memory(3, 2, 5, 8), REFERENCE_ID, FINGERPRINT)


def test_a_record_of_another_codebook_is_a_mismatch() -> None:
    record = CodecChain((Trellis(a_codebook(least_bits=5)), Pack())).encode(a_memory(), REFERENCE_ID, FINGERPRINT)
    with pytest.raises(RecordError, match="codec") as caught:
        CHAINS["trellis"].unpack(record, REFERENCE_ID, FINGERPRINT)
    assert caught.value.reason == "mismatch"


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (3, 2, 1, 16), elements=float32s))
def test_trellis_stores_any_number_and_gives_finite_ones(keys: np.ndarray) -> None:
    memory = MemoryArrays(keys, keys, np.zeros((3, 2, 1), np.uint8), 1)
    back = round_trip(CHAINS["trellis"], memory)
    assert np.isfinite(back.k_LKSD).all()
    assert np.isfinite(back.v_LKSD).all()


@pytest.mark.parametrize(
    ("description", "named"),
    [
        ({"name": "int7"}, "choose among fp32, bf16, int8, int4, trellis, pack"),
        ({}, "None"),
        ({"name": "bf16", "level": 3}, "level"),
        ({"name": "int8", "scale_dtype": "int8"}, "float16, float32"),
        ({"name": "int4", "scale_dtype": "int8"}, "float16, float32"),
        ({"name": "int4", "group_size": 0}, "group_size is 0"),
        ({"name": "int4", "group_size": 16.0}, "group_size is 16.0"),
    ],
)
def test_unknown_stages_and_parameters_are_refused(description: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        stage_from_dict(description)


@pytest.mark.parametrize(
    "stages", [(), (Fp32(),), (Pack(), Fp32()), (Pack(), Pack()), (Deflate(), Pack()), (Int8(), Deflate(), Pack())]
)
def test_stages_out_of_order_are_refused(stages: tuple[Fp32 | Pack | Deflate | Int8, ...]) -> None:
    with pytest.raises(ValueError, match="out of order"):
        CodecChain(stages)
