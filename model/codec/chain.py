"""The codec chain: a memory's arrays to its record, through the stages a memory plan names, and the record opened.

Stages on arrays are undone elsewhere (`model.expansion`). Knows the record's envelope and the stages' kinds, not what
any stage does, and nothing of models, banks or stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.codec.arrays import MemoryArrays
from model.codec.base import Arrays, ArraySpec, ArraysToArrays, ArraysToBytes, BytesToBytes, Specs, Stage
from model.codec.codebook import Codebook
from model.codec.floats import Bf16, Fp32
from model.codec.int4 import Int4
from model.codec.int8 import Int8
from model.codec.pack import Pack, packed_bytes
from model.codec.packed_memory import PackedMemory
from model.codec.record import (
    PREAMBLE_BYTES,
    RecordError,
    RecordHeader,
    check_identity,
    pack_record,
    parse_record,
)
from model.codec.trellis import Trellis
from model.identity import ID_HEX_DIGITS
from model.plan import MemoryPlan

STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (Fp32, Bf16, Int8, Int4, Trellis, Pack)}
"""Every stage a plan may name."""


@dataclass(frozen=True)
class CodecChain:
    """Stages in the order of encoding: any number on arrays, one that packs, any number on bytes.

    Raises ValueError on construction if the kinds do not follow each other so.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if len(self._packers) != 1 or self.stages != (*self.on_arrays, *self._packers, *self._on_bytes):
            raise ValueError(
                f"codec chain {[stage.name for stage in self.stages]} is out of order; give stages on arrays, then one "
                "that packs, then stages on bytes"
            )

    @classmethod
    def from_plan(cls, plan: MemoryPlan, codebook: Codebook | None = None) -> CodecChain:
        """The chain of `plan.codec`, with default parameters; `pack` goes where it belongs unless the plan names it.

        Raises ValueError on a stage that does not exist, or one that needs a codebook while there is none.
        """
        stages = [stage_from_dict({"name": name}, codebook) for name in plan.codec]
        if not any(isinstance(stage, ArraysToBytes) for stage in stages):
            stages.insert(sum(isinstance(stage, ArraysToArrays) for stage in stages), Pack())
        return cls(tuple(stages))

    @classmethod
    def from_description(cls, description: Sequence[Mapping[str, Any]], codebook: Codebook | None = None) -> CodecChain:
        """The chain that `describe` describes.

        Raises ValueError on a stage or parameter that does not exist, or if another codebook is described.
        """
        return cls(tuple(stage_from_dict(stage, codebook) for stage in description))

    def describe(self) -> list[dict[str, Any]]:
        """The stages with their parameters as JSON types, for the record's header and the model fingerprint."""
        return [stage.to_dict() for stage in self.stages]

    def encode(self, memory: MemoryArrays, reference_id: str, model_fingerprint: str) -> bytes:
        """The memory's record; equal memories give equal bytes.

        Raises ValueError if a number is not finite or beyond what a stage can hold, or if positions cannot be.
        """
        memory.check_content()
        arrays: Arrays = {"keys": memory.k_LKSD, "values": memory.v_LKSD, "positions": memory.positions_LKS}
        for stage in self.on_arrays:
            arrays = stage.encode(arrays)
        payload = self._packers[0].encode(arrays)
        for byte_stage in self._on_bytes:
            payload = byte_stage.encode(payload)
        header = RecordHeader(
            reference_id=reference_id,
            model_fingerprint=model_fingerprint,
            codec=tuple(self.describe()),
            shape=memory.shape,
            num_reference_tokens=memory.num_reference_tokens,
        )
        return pack_record(header, payload)

    def unpack(self, record: bytes | bytearray | memoryview, reference_id: str, model_fingerprint: str) -> PackedMemory:
        """The memory in a record, its stages on arrays not yet undone; free of the record's bytes.

        Raises RecordError: "corrupt", "version", or "mismatch" if the record is another reference's, another model's or
        was made by another chain.
        """
        header, payload = parse_record(record)
        check_identity(header, reference_id, model_fingerprint)
        if list(header.codec) != self.describe():
            raise RecordError(
                "mismatch",
                f"record was made by codec {list(header.codec)}, this chain is {self.describe()}; write it again",
            )
        try:
            data: bytes | memoryview = payload
            for byte_stage in reversed(self._on_bytes):
                data = byte_stage.decode(data)
            specs = self._packed_specs(header.shape)
        except ValueError as error:
            raise RecordError("corrupt", str(error)) from error
        if len(data) != packed_bytes(specs):
            raise RecordError(
                "corrupt", f"payload has {len(data)} bytes, its shape and codec ask for {packed_bytes(specs)}"
            )
        return PackedMemory(bytes(data), specs, header.shape, header.num_reference_tokens, reference_id)

    def record_bytes(self, shape: tuple[int, int, int, int], num_reference_tokens: int) -> int:
        """Size of the record of a memory of this shape (L, K, S, D); an upper bound if stages on bytes follow."""
        zeros = "0" * ID_HEX_DIGITS
        header = RecordHeader(zeros, zeros, tuple(self.describe()), shape, num_reference_tokens)
        return PREAMBLE_BYTES + len(header.to_json_bytes()) + packed_bytes(self._packed_specs(shape))

    @property
    def on_arrays(self) -> tuple[ArraysToArrays, ...]:
        """The stages before packing."""
        return tuple(stage for stage in self.stages if isinstance(stage, ArraysToArrays))

    def _packed_specs(self, shape: tuple[int, int, int, int]) -> Specs:
        float32 = np.dtype(np.float32)
        specs: Specs = {
            "keys": ArraySpec(float32, shape),
            "values": ArraySpec(float32, shape),
            "positions": ArraySpec(np.dtype(np.uint8), shape[:3]),
        }
        for stage in self.on_arrays:
            specs = stage.resolve(specs)
        return specs

    @property
    def _packers(self) -> tuple[ArraysToBytes, ...]:
        return tuple(stage for stage in self.stages if isinstance(stage, ArraysToBytes))

    @property
    def _on_bytes(self) -> tuple[BytesToBytes, ...]:
        return tuple(stage for stage in self.stages if isinstance(stage, BytesToBytes))


def stage_from_dict(description: Mapping[str, Any], codebook: Codebook | None = None) -> Stage:
    """The stage that `to_dict` describes; `codebook` is taken by the stage that needs one.

    Raises ValueError on an unknown name or parameter, a missing codebook, or one of another identity than described.
    """
    parameters = dict(description)
    name = parameters.pop("name", None)
    if name not in STAGES:
        raise ValueError(f"codec stage {name!r} does not exist; choose among {', '.join(STAGES)}")
    if name == Trellis.name:
        return _trellis(codebook, parameters)
    try:
        return STAGES[name](**parameters)
    except TypeError as error:
        raise ValueError(f"codec stage {name!r} does not take {parameters}: {error}") from error


def _trellis(codebook: Codebook | None, parameters: Mapping[str, Any]) -> Trellis:
    if codebook is None:
        raise ValueError("codec stage 'trellis' needs a codebook; train one for the model and plan (memory3 quantise)")
    if parameters and parameters != {"codebook": codebook.identity}:
        raise ValueError(f"codec stage 'trellis' with {parameters} is not that of the codebook {codebook.identity}")
    return Trellis(codebook)
