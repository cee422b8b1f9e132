from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Timing(_message.Message):
    __slots__ = ("total_ns", "queue_ns", "embed_ns", "search_ns")
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    EMBED_NS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_NS_FIELD_NUMBER: _ClassVar[int]
    total_ns: int
    queue_ns: int
    embed_ns: int
    search_ns: int
    def __init__(self, total_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., embed_ns: _Optional[int] = ..., search_ns: _Optional[int] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "dimension", "embedder_id", "timing")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedScalarFieldContainer[bytes]
    dimension: int
    embedder_id: str
    timing: Timing
    def __init__(self, vectors: _Optional[_Iterable[bytes]] = ..., dimension: _Optional[int] = ..., embedder_id: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("bank", "queries", "top_k", "document_ids")
    BANK_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    bank: str
    queries: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    document_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bank: _Optional[str] = ..., queries: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ..., document_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("results", "timing")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResult]
    timing: Timing
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResult, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class QueryResult(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("reference", "score")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    reference: Reference
    score: float
    def __init__(self, reference: _Optional[_Union[Reference, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("reference_id", "text", "document_id", "title", "source", "ordinal", "start_char", "end_char", "num_tokens", "preceding")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    START_CHAR_FIELD_NUMBER: _ClassVar[int]
    END_CHAR_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRECEDING_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    text: str
    document_id: str
    title: str
    source: str
    ordinal: int
    start_char: int
    end_char: int
    num_tokens: int
    preceding: str
    def __init__(self, reference_id: _Optional[str] = ..., text: _Optional[str] = ..., document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., ordinal: _Optional[int] = ..., start_char: _Optional[int] = ..., end_char: _Optional[int] = ..., num_tokens: _Optional[int] = ..., preceding: _Optional[str] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("bank", "document_id", "version", "references", "last_part")
    BANK_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    LAST_PART_FIELD_NUMBER: _ClassVar[int]
    bank: str
    document_id: str
    version: str
    references: _containers.RepeatedCompositeFieldContainer[Reference]
    last_part: bool
    def __init__(self, bank: _Optional[str] = ..., document_id: _Optional[str] = ..., version: _Optional[str] = ..., references: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ..., last_part: _Optional[bool] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("num_references", "num_removed", "orphaned_reference_ids", "timing")
    NUM_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    NUM_REMOVED_FIELD_NUMBER: _ClassVar[int]
    ORPHANED_REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    num_references: int
    num_removed: int
    orphaned_reference_ids: _containers.RepeatedScalarFieldContainer[str]
    timing: Timing
    def __init__(self, num_references: _Optional[int] = ..., num_removed: _Optional[int] = ..., orphaned_reference_ids: _Optional[_Iterable[str]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("bank", "document_ids", "whole_bank")
    BANK_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_BANK_FIELD_NUMBER: _ClassVar[int]
    bank: str
    document_ids: _containers.RepeatedScalarFieldContainer[str]
    whole_bank: bool
    def __init__(self, bank: _Optional[str] = ..., document_ids: _Optional[_Iterable[str]] = ..., whole_bank: _Optional[bool] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("num_documents", "num_references", "orphaned_reference_ids", "total_ns")
    NUM_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    ORPHANED_REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    num_documents: int
    num_references: int
    orphaned_reference_ids: _containers.RepeatedScalarFieldContainer[str]
    total_ns: int
    def __init__(self, num_documents: _Optional[int] = ..., num_references: _Optional[int] = ..., orphaned_reference_ids: _Optional[_Iterable[str]] = ..., total_ns: _Optional[int] = ...) -> None: ...

class GetReferencesRequest(_message.Message):
    __slots__ = ("bank", "reference_ids")
    BANK_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    bank: str
    reference_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bank: _Optional[str] = ..., reference_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetReferencesResponse(_message.Message):
    __slots__ = ("references", "total_ns")
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    references: _containers.RepeatedCompositeFieldContainer[Reference]
    total_ns: int
    def __init__(self, references: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ..., total_ns: _Optional[int] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("bank", "page_size", "page_token")
    BANK_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    bank: str
    page_size: int
    page_token: str
    def __init__(self, bank: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "next_page_token", "total_ns")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    next_page_token: str
    total_ns: int
    def __init__(self, documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_ns: _Optional[int] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("document_id", "title", "source", "version", "num_references")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    title: str
    source: str
    version: str
    num_references: int
    def __init__(self, document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., version: _Optional[str] = ..., num_references: _Optional[int] = ...) -> None: ...

class ListBanksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBanksResponse(_message.Message):
    __slots__ = ("banks", "total_ns")
    BANKS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    banks: _containers.RepeatedCompositeFieldContainer[Bank]
    total_ns: int
    def __init__(self, banks: _Optional[_Iterable[_Union[Bank, _Mapping]]] = ..., total_ns: _Optional[int] = ...) -> None: ...

class Bank(_message.Message):
    __slots__ = ("bank", "num_references", "embedder_id", "dimension")
    BANK_FIELD_NUMBER: _ClassVar[int]
    NUM_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_ID_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    bank: str
    num_references: int
    embedder_id: str
    dimension: int
    def __init__(self, bank: _Optional[str] = ..., num_references: _Optional[int] = ..., embedder_id: _Optional[str] = ..., dimension: _Optional[int] = ...) -> None: ...

class DescribeBankRequest(_message.Message):
    __slots__ = ("bank",)
    BANK_FIELD_NUMBER: _ClassVar[int]
    bank: str
    def __init__(self, bank: _Optional[str] = ...) -> None: ...

class DescribeBankResponse(_message.Message):
    __slots__ = ("bank", "num_documents", "total_ns")
    BANK_FIELD_NUMBER: _ClassVar[int]
    NUM_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    bank: Bank
    num_documents: int
    total_ns: int
    def __init__(self, bank: _Optional[_Union[Bank, _Mapping]] = ..., num_documents: _Optional[int] = ..., total_ns: _Optional[int] = ...) -> None: ...
