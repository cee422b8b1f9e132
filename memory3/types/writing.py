"""What the writer and the decoder's description speak of. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memory3.api.decoder.v1 import decoder_pb2
from memory3.types.wire import TolerantEnum, plain


class ReferenceText(NamedTuple):
    """What a memory is written of."""

    reference_id: str
    """Hash of text and preceding text."""
    text: str
    preceding: str = ""
    """The text directly before it in its document."""

    @classmethod
    def from_pb(cls, pb: decoder_pb2.WriteReference) -> ReferenceText:
        return cls(pb.reference_id, pb.text, pb.preceding)

    def to_pb(self) -> decoder_pb2.WriteReference:
        return decoder_pb2.WriteReference(**self._asdict())


class WriteStatus(TolerantEnum):
    """How one write fared; numbers as in decoder.proto."""

    UNKNOWN = 0
    WRITTEN = 1
    EXISTED = 2
    FAILED = 3


@dataclass(frozen=True)
class WriteItem:
    """How one reference's write fared; `error` says why it failed."""

    reference_id: str
    status: WriteStatus
    size_bytes: int
    error: str = ""

    @classmethod
    def from_pb(cls, pb: decoder_pb2.WriteResult) -> WriteItem:
        return cls(pb.reference_id, WriteStatus(pb.status), pb.size_bytes, pb.error)

    def to_pb(self) -> decoder_pb2.WriteResult:
        return decoder_pb2.WriteResult(**self.__dict__)


@dataclass(frozen=True)
class WriteResult:
    """One item for each reference, in order; times in nanoseconds."""

    items: Sequence[WriteItem]
    total_ns: int
    encode_ns: int
    put_ns: int

    @classmethod
    def from_pb(cls, pb: decoder_pb2.WriteResponse) -> WriteResult:
        return cls([WriteItem.from_pb(item) for item in pb.results], pb.total_ns, pb.encode_ns, pb.put_ns)

    def to_pb(self) -> decoder_pb2.WriteResponse:
        return decoder_pb2.WriteResponse(
            results=[item.to_pb() for item in self.items],
            total_ns=self.total_ns,
            encode_ns=self.encode_ns,
            put_ns=self.put_ns,
        )


@dataclass(frozen=True)
class DecoderInfo:
    """What decodes behind an address; the fields are explained in decoder.proto (InfoResponse)."""

    model: str
    model_fingerprint: str
    tokenizer: str
    max_context_tokens: int
    memory_plan_json: str
    memory_bytes: int
    dense_reference_bytes: int
    max_batch_size: int
    dtype: str
    total_ns: int = 0

    @classmethod
    def from_pb(cls, pb: decoder_pb2.InfoResponse) -> DecoderInfo:
        return cls(**plain(cls, pb))

    def to_pb(self) -> decoder_pb2.InfoResponse:
        return decoder_pb2.InfoResponse(**self.__dict__)
