"""The stored form never changes by accident: frozen records, and the refusal of every damaged one.

The vectors in vectors/ were written once, by version 1 of the format. A test that fails here means that stored banks
can no longer be read, or that equal memories no longer give equal bytes; new bytes need a new version, not a new file.
(Of stage trellis: a new format of the codebook, by whose identity a record names it. The vector is of format 2.)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.codec.arrays import MemoryArrays
from model.codec.chain import CodecChain
from model.codec.codebook import Codebook, CodebookOrigin
from model.codec.record import RecordError, RecordHeader, check_identity, pack_record, parse_record
from model.plan import MemoryPlan
from tests.helpers.records import read

VECTORS = Path(__file__).parent / "vectors"
CODECS = ("fp32", "bf16", "int8", "int4", "trellis")
REFERENCE_ID = "00112233445566778899aabbccddeeff"
FINGERPRINT = "ffeeddccbbaa99887766554433221100"
PREAMBLE = 40
ORDER = [1, 4, 3, 6, 5, 0, 7, 2]
"""Which of four dimensions of a key, or of the value behind it, a number of stage trellis stands for."""


def a_memory() -> MemoryArrays:
    """Two layers, one KV head, three tokens, four dimensions; with ties of bf16, zeros and a whole zero vector."""
    numbers = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4)
    values = numbers * np.float32(-0.37)
    values[1, 0, 2] = 0
    positions = np.array([[[0, 1, 2]], [[0, 7, 127]]], dtype=np.uint8)
    return MemoryArrays(1 + numbers / 256, values, positions, num_reference_tokens=128)


def chain(codec: str) -> CodecChain:
    plan = MemoryPlan("vector", (0, 1), 3, "attention", "sum", codec=(codec,))
    return CodecChain.from_plan(plan, a_codebook() if codec == "trellis" else None)


def a_codebook() -> Codebook:
    """Whole numbers, so that nothing depends on how a machine rounds; theta and prefix as a model might have them."""
    bits = np.array([[[3, 2, 1, 0, 2, 2, 2, 1]]] * 2, dtype=np.uint8)
    basis = np.zeros((2, 1, 8, 8), dtype=np.float32)
    basis[..., range(8), ORDER] = 0.5
    levels = np.zeros(1020, dtype=np.float32)
    for number in range(1, 9):
        first, count = 2 ** (number + 1) - 4, 2 ** (number + 1)
        levels[first : first + count] = (np.arange(count) - (count - 1) / 2) * (8 / count)
    mean = np.full((2, 1, 8), 0.25, dtype=np.float32)
    return Codebook(CodebookOrigin("e" * 64, (0, 1), 10_000.0, 1), mean, basis, bits, levels, value_gain=1.25)


def vector(codec: str) -> bytes:
    return bytes.fromhex((VECTORS / f"record-v1-{codec}.hex").read_text())


@pytest.mark.parametrize("codec", CODECS)
def test_equal_memories_give_the_frozen_bytes(codec: str) -> None:
    assert chain(codec).encode(a_memory(), REFERENCE_ID, FINGERPRINT) == vector(codec)


@pytest.mark.parametrize("codec", CODECS)
def test_frozen_records_are_read(codec: str) -> None:
    """The numbers are decoded here by hand from the page docs/memory-format.md, not by the code under test."""
    record = vector(codec)
    memory = read(chain(codec), record, REFERENCE_ID, FINGERPRINT)
    payload = record[PREAMBLE + struct.unpack_from("<I", record, 12)[0] :]
    keys, values, positions = decode_by_hand(codec, payload)
    tolerance = 1e-5 if codec == "trellis" else 0  # its keys are turned, with the sines of this machine
    np.testing.assert_allclose(memory.k_LKSD.ravel(), keys, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(memory.v_LKSD.ravel(), values, rtol=tolerance, atol=tolerance)
    assert list(memory.positions_LKS.ravel()) == positions == [0, 1, 2, 0, 7, 127]
    assert memory.num_reference_tokens == 128


def decode_by_hand(codec: str, payload: bytes) -> tuple[list[float], list[float], list[int]]:
    if codec == "fp32":
        numbers = list(struct.unpack_from("<48f", payload))
        return numbers[:24], numbers[24:], list(payload[192:])
    if codec == "bf16":
        halves = struct.unpack_from("<48H", payload)
        numbers = [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
        return numbers[:24], numbers[24:], list(payload[96:])
    if codec == "int4":
        arrays = []
        for start in (0, 24):
            halves, scales = payload[start : start + 12], struct.unpack_from("<6e", payload, start + 12)
            codes = [nibble - 7 for byte in halves for nibble in (byte & 15, byte >> 4)]
            arrays.append([float(np.float32(code) * np.float32(scales[i // 4])) for i, code in enumerate(codes)])
        return arrays[0], arrays[1], list(payload[48:])
    if codec == "trellis":
        return decode_trellis_by_hand(payload)
    arrays = []
    for start in (0, 36):
        codes, scales = struct.unpack_from("<24b", payload, start), struct.unpack_from("<6e", payload, start + 24)
        arrays.append([float(np.float32(code) * np.float32(scales[i // 4])) for i, code in enumerate(codes)])
    return arrays[0], arrays[1], list(payload[72:])


def decode_trellis_by_hand(payload: bytes) -> tuple[list[float], list[float], list[int]]:
    """Four bytes a token: 26 bits. Numbers in order of their bits: of which layer, and which of its eight."""
    book = a_codebook()
    order = sorted(
        ((layer, i) for layer in range(2) for i in range(8) if book.bits_LKI[layer, 0, i]),
        key=lambda place: -int(book.bits_LKI[place[0], 0, place[1]]),
    )
    bits = [int(book.bits_LKI[layer, 0, i]) for layer, i in order]
    positions = list(payload[12:])
    keys, values = [0.0] * 24, [0.0] * 24
    for token in range(3):
        stream = [byte >> (7 - bit) & 1 for byte in payload[4 * token : 4 * token + 4] for bit in range(8)]
        codes, place = [0] * len(order), 0
        for plane in range(3):
            for column, number_bits in enumerate(bits):
                if number_bits > plane:
                    codes[column] |= stream[place] << plane
                    place += 1
        assert place == 26
        assert not any(stream[place:])
        for column, (layer, i) in enumerate(order):
            branch = [codes[column - 2 * back] & 1 if column >= 2 * back else 0 for back in range(6)]
            subset = 2 * ((branch[0] + branch[2] + branch[5]) % 2) + branch[3]
            count = 2 ** (bits[column] + 1)
            number = (4 * (codes[column] >> 1) + subset - (count - 1) / 2) * (8 / count)
            is_value, dimension = divmod(ORDER[i], 4)
            (values if is_value else keys)[layer * 12 + token * 4 + dimension] += (0.625 if is_value else 0.5) * number
        for layer in range(2):
            first = layer * 12 + token * 4
            values[first : first + 4] = [value + 0.25 for value in values[first : first + 4]]
            at_0 = [key + 0.25 for key in keys[first : first + 4]]
            for pair in range(2):
                angle = (1 + positions[3 * layer + token]) * 10_000.0 ** (-pair / 2)
                turned = complex(at_0[pair], at_0[pair + 2]) * complex(math.cos(angle), math.sin(angle))
                keys[first + pair], keys[first + pair + 2] = turned.real, turned.imag
    return keys, values, positions


def test_the_envelope_is_as_documented() -> None:
    record = vector("int8")
    magic, version, reserved, header_length, payload_length = struct.unpack_from("<8sHHIQ", record)
    assert (magic, version, reserved) == (b"\x93MEM3\r\n\x1a", 1, 0)
    header, payload = record[PREAMBLE : PREAMBLE + header_length], record[PREAMBLE + header_length :]
    assert len(payload) == payload_length == 2 * 1 * 3 * (2 * (4 + 2) + 1)
    assert record[24:40] == hashlib.blake2b(record[:24] + header + payload, digest_size=16).digest()
    assert header == (
        b'{"codec":[{"name":"int8","scale_dtype":"float16"},{"name":"pack"}],'
        b'"model_fingerprint":"ffeeddccbbaa99887766554433221100","num_reference_tokens":128,'
        b'"reference_id":"00112233445566778899aabbccddeeff","shape":[2,1,3,4]}'
    )


def test_every_flipped_bit_is_caught() -> None:
    record = vector("int8")
    for index in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[index] ^= 1 << bit
            with pytest.raises(RecordError) as caught:
                parse_record(damaged)
            assert caught.value.reason == ("version" if index in {8, 9} else "corrupt"), (index, bit)


def test_every_cut_is_caught() -> None:
    record = vector("int8")
    for length in range(len(record)):
        with pytest.raises(RecordError) as caught:
            parse_record(record[:length])
        assert caught.value.reason == "corrupt", length


@given(st.binary(min_size=1, max_size=100))
def test_every_extension_is_caught(tail: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(vector("int8") + tail)
    assert caught.value.reason == "corrupt"
    with pytest.raises(RecordError):  # a lucky tail in front may look like another version
        parse_record(tail + vector("int8"))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_error(data: bytes) -> None:
    with pytest.raises(RecordError):
        parse_record(data)


def test_moving_the_border_of_header_and_payload_is_caught() -> None:
    """The lengths are under the checksum too: the bytes behind them are the same."""
    damaged = bytearray(vector("int8"))
    header_length, payload_length = struct.unpack_from("<IQ", damaged, 12)
    struct.pack_into("<IQ", damaged, 12, header_length - 1, payload_length + 1)
    with pytest.raises(RecordError, match="checksum"):
        parse_record(damaged)


def sealed(header: bytes, payload: bytes = b"") -> bytes:
    """A record with a right checksum, whatever its header says."""
    lengths = struct.pack("<8sHHIQ", b"\x93MEM3\r\n\x1a", 1, 0, len(header), len(payload))
    return lengths + hashlib.blake2b(lengths + header + payload, digest_size=16).digest() + header + payload


GOOD = {
    "reference_id": REFERENCE_ID,
    "model_fingerprint": FINGERPRINT,
    "codec": [{"name": "pack"}],
    "shape": [2, 1, 3, 4],
    "num_reference_tokens": 128,
}


def spelt(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"[" * 60_000,
        json.dumps(GOOD, sort_keys=True).encode(),
        spelt(GOOD | {"reference_id": REFERENCE_ID.upper()}),
        spelt(GOOD | {"reference_id": REFERENCE_ID[:-1]}),
        spelt(GOOD | {"model_fingerprint": 5}),
        spelt(GOOD | {"codec": []}),
        spelt(GOOD | {"codec": "int8"}),
        spelt(GOOD | {"codec": ["int8"]}),
        spelt(GOOD | {"shape": [2, 1, 3]}),
        spelt(GOOD | {"shape": [2, 1, 0, 4]}),
        spelt(GOOD | {"shape": [2, 1, 3.0, 4]}),
        spelt(GOOD | {"shape": [True, 1, 3, 4]}),
        spelt(GOOD | {"shape": 24}),
        spelt(GOOD | {"num_reference_tokens": 2}),
        spelt(GOOD | {"num_reference_tokens": 257}),
        spelt({key: value for key, value in GOOD.items() if key != "shape"}),
        b"x" * 70_000,
    ],
    ids=lambda header: header[:40].decode("latin-1"),
)
def test_sealed_nonsense_is_corrupt(header: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(sealed(header))
    assert caught.value.reason == "corrupt"


def test_unknown_header_keys_are_ignored() -> None:
    """The one way version 1 may grow."""
    header, payload = parse_record(sealed(spelt(GOOD | {"note": "é"}), b"xyz"))
    assert header.shape == (2, 1, 3, 4)
    assert bytes(payload) == b"xyz"


def test_another_version_is_told_apart_from_damage() -> None:
    newer = bytearray(vector("int8"))
    struct.pack_into("<H", newer, 8, 2)
    with pytest.raises(RecordError, match="version 2") as caught:
        parse_record(newer)
    assert caught.value.reason == "version"


@pytest.mark.parametrize(
    ("reference_id", "fingerprint", "named"),
    [("0" * 32, FINGERPRINT, "reference_id"), (REFERENCE_ID, "0" * 32, "model_fingerprint")],
)
def test_another_identity_is_a_mismatch(reference_id: str, fingerprint: str, named: str) -> None:
    with pytest.raises(RecordError, match=named) as caught:
        check_identity(parse_record(vector("int8"))[0], reference_id, fingerprint)
    assert caught.value.reason == "mismatch"
    with pytest.raises(RecordError, match=named):
        chain("int8").unpack(vector("int8"), reference_id, fingerprint)


def test_another_codec_is_a_mismatch() -> None:
    with pytest.raises(RecordError, match="codec") as caught:
        chain("bf16").unpack(vector("int8"), REFERENCE_ID, FINGERPRINT)
    assert caught.value.reason == "mismatch"


headers = st.builds(
    RecordHeader,
    reference_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    model_fingerprint=st.text("0123456789abcdef", min_size=32, max_size=32),
    codec=st.lists(st.fixed_dictionaries({"name": st.text(min_size=1), "level": st.integers()}), min_size=1).map(tuple),
    shape=st.tuples(*[st.integers(1, 9)] * 4),
    num_reference_tokens=st.integers(9, 256),
)


@settings(max_examples=50)
@given(headers, st.binary(max_size=300), st.sampled_from([bytes, bytearray, memoryview]))
def test_what_is_packed_is_parsed(header: RecordHeader, payload: bytes, kind: type) -> None:
    record = pack_record(header, payload)
    assert record == pack_record(header, payload)
    parsed_header, parsed_payload = parse_record(kind(record))
    assert parsed_header == header
    assert bytes(parsed_payload) == payload


def test_a_long_header_is_refused_at_writing() -> None:
    header = RecordHeader(REFERENCE_ID, FINGERPRINT, ({"name": "x" * 70_000},), (1, 1, 1, 1), 1)
    with pytest.raises(ValueError, match=re.escape("65536")):
        pack_record(header, b"")


def test_the_envelope_needs_the_standard_library_only() -> None:
    source = (Path(__file__).parents[2] / "model" / "codec" / "record.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, flags=re.MULTILINE))
    assert imported == {"__future__", "collections", "dataclasses", "hashlib", "json", "struct", "typing"}
