from memory3.api.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FetchStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FETCH_STATUS_UNSPECIFIED: _ClassVar[FetchStatus]
    FETCH_STATUS_FOUND: _ClassVar[FetchStatus]
    FETCH_STATUS_MISSING: _ClassVar[FetchStatus]
    FETCH_STATUS_CORRUPT: _ClassVar[FetchStatus]
    FETCH_STATUS_MISMATCH: _ClassVar[FetchStatus]
    FETCH_STATUS_UNAVAILABLE: _ClassVar[FetchStatus]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_RAM: _ClassVar[Tier]
    TIER_OBJECT: _ClassVar[Tier]
FETCH_STATUS_UNSPECIFIED: FetchStatus
FETCH_STATUS_FOUND: FetchStatus
FETCH_STATUS_MISSING: FetchStatus
FETCH_STATUS_CORRUPT: FetchStatus
FETCH_STATUS_MISMATCH: FetchStatus
FETCH_STATUS_UNAVAILABLE: FetchStatus
TIER_UNSPECIFIED: Tier
TIER_RAM: Tier
TIER_OBJECT: Tier

class PutRequest(_message.Message):
    __slots__ = ("identity", "record")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    identity: _common_pb2.MemoryIdentity
    record: bytes
    def __init__(self, identity: _Optional[_Union[_common_pb2.MemoryIdentity, _Mapping]] = ..., record: _Optional[bytes] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("created", "total_ns")
    CREATED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    created: bool
    total_ns: int
    def __init__(self, created: _Optional[bool] = ..., total_ns: _Optional[int] = ...) -> None: ...

class BatchGetRequest(_message.Message):
    __slots__ = ("bank", "model_fingerprint", "reference_ids")
    BANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    bank: str
    model_fingerprint: str
    reference_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bank: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., reference_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchGetResponse(_message.Message):
    __slots__ = ("reference_id", "status", "tier", "record", "elapsed_ns")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    status: FetchStatus
    tier: Tier
    record: bytes
    elapsed_ns: int
    def __init__(self, reference_id: _Optional[str] = ..., status: _Optional[_Union[FetchStatus, str]] = ..., tier: _Optional[_Union[Tier, str]] = ..., record: _Optional[bytes] = ..., elapsed_ns: _Optional[int] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("bank", "model_fingerprint", "reference_ids")
    BANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    bank: str
    model_fingerprint: str
    reference_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bank: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., reference_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StatResponse(_message.Message):
    __slots__ = ("items", "total_ns")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[MemoryStat]
    total_ns: int
    def __init__(self, items: _Optional[_Iterable[_Union[MemoryStat, _Mapping]]] = ..., total_ns: _Optional[int] = ...) -> None: ...

class MemoryStat(_message.Message):
    __slots__ = ("reference_id", "exists", "size_bytes")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    exists: bool
    size_bytes: int
    def __init__(self, reference_id: _Optional[str] = ..., exists: _Optional[bool] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("bank", "reference_ids", "model_fingerprint", "whole_bank")
    BANK_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_BANK_FIELD_NUMBER: _ClassVar[int]
    bank: str
    reference_ids: _containers.RepeatedScalarFieldContainer[str]
    model_fingerprint: str
    whole_bank: bool
    def __init__(self, bank: _Optional[str] = ..., reference_ids: _Optional[_Iterable[str]] = ..., model_fingerprint: _Optional[str] = ..., whole_bank: _Optional[bool] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("num_memories", "total_ns")
    NUM_MEMORIES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    num_memories: int
    total_ns: int
    def __init__(self, num_memories: _Optional[int] = ..., total_ns: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("bank", "model_fingerprint", "page_size", "page_token")
    BANK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    bank: str
    model_fingerprint: str
    page_size: int
    page_token: str
    def __init__(self, bank: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("memories", "next_page_token", "total_ns")
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    memories: _containers.RepeatedCompositeFieldContainer[MemoryEntry]
    next_page_token: str
    total_ns: int
    def __init__(self, memories: _Optional[_Iterable[_Union[MemoryEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_ns: _Optional[int] = ...) -> None: ...

class MemoryEntry(_message.Message):
    __slots__ = ("identity", "size_bytes")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    identity: _common_pb2.MemoryIdentity
    size_bytes: int
    def __init__(self, identity: _Optional[_Union[_common_pb2.MemoryIdentity, _Mapping]] = ..., size_bytes: _Optional[int] = ...) -> None: ...
