"""What the retrieval tier speaks of: references, documents, banks, hits. Knows no vector index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.types.wire import plain


@dataclass(frozen=True)
class Reference:
    """A text chunk of at most 128 tokens, with its place in its document.

    Characters are counted from 0, end exclusive; `num_tokens` in tokens of the model's tokenizer. `preceding` is the
    text directly before it, the reference before it as a rule.
    """

    reference_id: str
    text: str
    document_id: str
    title: str = ""
    source: str = ""
    ordinal: int = 0
    start_char: int = 0
    end_char: int = 0
    num_tokens: int = 0
    preceding: str = ""

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.Reference) -> Reference:
        return cls(**plain(cls, pb))

    def to_pb(self) -> retrieval_pb2.Reference:
        return retrieval_pb2.Reference(**self.__dict__)


@dataclass(frozen=True)
class Hit:
    """One found reference and its cosine similarity to the query."""

    reference: Reference
    score: float

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.Hit) -> Hit:
        return cls(Reference.from_pb(pb.reference), pb.score)

    def to_pb(self) -> retrieval_pb2.Hit:
        return retrieval_pb2.Hit(reference=self.reference.to_pb(), score=self.score)


@dataclass(frozen=True)
class RetrieveTiming:
    """Time by stage in the retrieval tier, nanoseconds."""

    total_ns: int = 0
    queue_ns: int = 0
    embed_ns: int = 0
    search_ns: int = 0

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.Timing) -> RetrieveTiming:
        return cls(**plain(cls, pb))

    def to_pb(self) -> retrieval_pb2.Timing:
        return retrieval_pb2.Timing(**self.__dict__)


@dataclass(frozen=True)
class RetrieveResult:
    """One list of hits for each query, in order."""

    results: Sequence[Sequence[Hit]]
    timing: RetrieveTiming

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.RetrieveResponse) -> RetrieveResult:
        return cls(
            [[Hit.from_pb(hit) for hit in result.hits] for result in pb.results], RetrieveTiming.from_pb(pb.timing)
        )

    def to_pb(self) -> retrieval_pb2.RetrieveResponse:
        results = [retrieval_pb2.QueryResult(hits=[hit.to_pb() for hit in hits]) for hits in self.results]
        return retrieval_pb2.RetrieveResponse(results=results, timing=self.timing.to_pb())


@dataclass(frozen=True)
class EmbedResult:
    """One vector for each text: little-endian float32, unit length."""

    vectors: Sequence[bytes]
    dimension: int
    embedder_id: str
    timing: RetrieveTiming

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.EmbedResponse) -> EmbedResult:
        return cls(list(pb.vectors), pb.dimension, pb.embedder_id, RetrieveTiming.from_pb(pb.timing))

    def to_pb(self) -> retrieval_pb2.EmbedResponse:
        return retrieval_pb2.EmbedResponse(
            vectors=self.vectors, dimension=self.dimension, embedder_id=self.embedder_id, timing=self.timing.to_pb()
        )


@dataclass(frozen=True)
class UpsertResult:
    """What an upsert did, and the references that no document of the bank holds any more."""

    num_references: int
    num_removed: int
    orphaned_reference_ids: Sequence[str]
    timing: RetrieveTiming

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.UpsertResponse) -> UpsertResult:
        orphans = list(pb.orphaned_reference_ids)
        return cls(pb.num_references, pb.num_removed, orphans, RetrieveTiming.from_pb(pb.timing))

    def to_pb(self) -> retrieval_pb2.UpsertResponse:
        return retrieval_pb2.UpsertResponse(
            num_references=self.num_references,
            num_removed=self.num_removed,
            orphaned_reference_ids=self.orphaned_reference_ids,
            timing=self.timing.to_pb(),
        )


@dataclass(frozen=True)
class DeleteResult:
    """What a delete removed from the index, and the references no document holds any more."""

    num_documents: int
    num_references: int
    orphaned_reference_ids: Sequence[str]
    total_ns: int = 0

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.DeleteResponse) -> DeleteResult:
        return cls(pb.num_documents, pb.num_references, list(pb.orphaned_reference_ids), pb.total_ns)

    def to_pb(self) -> retrieval_pb2.DeleteResponse:
        return retrieval_pb2.DeleteResponse(**self.__dict__)


@dataclass(frozen=True)
class Document:
    """What a user gave us to ingest. `version` is a hash of its content and of the rule that cut it."""

    document_id: str
    title: str
    source: str
    version: str
    num_references: int

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.Document) -> Document:
        return cls(**plain(cls, pb))

    def to_pb(self) -> retrieval_pb2.Document:
        return retrieval_pb2.Document(**self.__dict__)


@dataclass(frozen=True)
class Bank:
    """A named set of references embedded by one embedder. `num_documents` is None where it was not counted."""

    bank: str
    num_references: int
    embedder_id: str
    dimension: int
    num_documents: int | None = None

    @classmethod
    def from_pb(cls, pb: retrieval_pb2.Bank, num_documents: int | None = None) -> Bank:
        return cls(pb.bank, pb.num_references, pb.embedder_id, pb.dimension, num_documents)

    def to_pb(self) -> retrieval_pb2.Bank:
        return retrieval_pb2.Bank(
            bank=self.bank,
            num_references=self.num_references,
            embedder_id=self.embedder_id,
            dimension=self.dimension,
        )
