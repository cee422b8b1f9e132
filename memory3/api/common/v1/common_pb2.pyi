from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_MALFORMED_REQUEST: _ClassVar[ErrorReason]
    ERROR_REASON_CONTEXT_TOO_LONG: _ClassVar[ErrorReason]
    ERROR_REASON_MESSAGE_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_BANK: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_DOCUMENT: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_REFERENCE: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_MEMORY: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_CORRUPT_RECORD: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_CANCELLED: _ClassVar[ErrorReason]
    ERROR_REASON_BACKEND_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_CONFLICTING_RECORD: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]

class Fault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAULT_UNSPECIFIED: _ClassVar[Fault]
    FAULT_CALLER: _ClassVar[Fault]
    FAULT_SERVICE: _ClassVar[Fault]
    FAULT_DEPENDENCY: _ClassVar[Fault]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_MALFORMED_REQUEST: ErrorReason
ERROR_REASON_CONTEXT_TOO_LONG: ErrorReason
ERROR_REASON_MESSAGE_TOO_LARGE: ErrorReason
ERROR_REASON_UNKNOWN_BANK: ErrorReason
ERROR_REASON_UNKNOWN_DOCUMENT: ErrorReason
ERROR_REASON_UNKNOWN_REFERENCE: ErrorReason
ERROR_REASON_UNKNOWN_MEMORY: ErrorReason
ERROR_REASON_MODEL_MISMATCH: ErrorReason
ERROR_REASON_CORRUPT_RECORD: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_CANCELLED: ErrorReason
ERROR_REASON_BACKEND_UNAVAILABLE: ErrorReason
ERROR_REASON_STORAGE_FULL: ErrorReason
ERROR_REASON_STORAGE_DENIED: ErrorReason
ERROR_REASON_CONFLICTING_RECORD: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
FAULT_UNSPECIFIED: Fault
FAULT_CALLER: Fault
FAULT_SERVICE: Fault
FAULT_DEPENDENCY: Fault

class ErrorDetail(_message.Message):
    __slots__ = ("reason", "retriable", "fault", "retry_after_ms", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: ErrorReason
    retriable: bool
    fault: Fault
    retry_after_ms: int
    message: str
    def __init__(self, reason: _Optional[_Union[ErrorReason, str]] = ..., retriable: _Optional[bool] = ..., fault: _Optional[_Union[Fault, str]] = ..., retry_after_ms: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class MemoryIdentity(_message.Message):
    __slots__ = ("bank", "reference_id", "model_fingerprint")
    BANK_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    bank: str
    reference_id: str
    model_fingerprint: str
    def __init__(self, bank: _Optional[str] = ..., reference_id: _Optional[str] = ..., model_fingerprint: _Optional[str] = ...) -> None: ...
