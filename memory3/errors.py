"""Every way a call can fail: one exception class a reason, and the one table to and from gRPC.

Both ends use it: services raise these classes, clients get the same classes back.
Nothing recognises an error by its text.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from memory3.api.common.v1 import common_pb2

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata key under which gRPC carries a serialised google.rpc.Status."""


class Fault(enum.IntEnum):
    """Who can mend an error; numbers as in common.proto."""

    CALLER = 1
    SERVICE = 2
    DEPENDENCY = 3


class Reason(enum.IntEnum):
    """What went wrong; numbers as in common.proto."""

    MALFORMED_REQUEST = 1
    CONTEXT_TOO_LONG = 2
    MESSAGE_TOO_LARGE = 3
    UNKNOWN_BANK = 4
    UNKNOWN_DOCUMENT = 5
    UNKNOWN_REFERENCE = 6
    UNKNOWN_MEMORY = 7
    MODEL_MISMATCH = 8
    CORRUPT_RECORD = 9
    OVERLOADED = 10
    DEADLINE_EXCEEDED = 11
    CANCELLED = 12
    BACKEND_UNAVAILABLE = 13
    STORAGE_FULL = 14
    STORAGE_DENIED = 15
    CONFLICTING_RECORD = 16
    INTERNAL = 17
    UNAUTHENTICATED = 18
    PERMISSION_DENIED = 19


class Memory3Error(Exception):
    """Base of all errors. The message names the value, the limit and the remedy.

    `retry_after_ms`: when to try again, if `retriable`; None when the server gave no hint.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms

    @property
    def retriable(self) -> bool:
        """Whether the same request may succeed later."""
        return TABLE[self.reason].retriable

    @property
    def fault(self) -> Fault:
        """Who can mend it."""
        return TABLE[self.reason].fault

    def __reduce__(self) -> tuple[object, ...]:
        # Ray carries exceptions between processes by pickling them; keyword-only arguments need a hand.
        return (_rebuild, (type(self), str(self), self.retry_after_ms))


def _rebuild(cls: type[Memory3Error], message: str, retry_after_ms: int | None) -> Memory3Error:
    return cls(message, retry_after_ms=retry_after_ms)


class MalformedRequestError(Memory3Error):
    """A field is missing, empty, out of range or contradicts another."""

    reason = Reason.MALFORMED_REQUEST


class ContextTooLongError(Memory3Error):
    """Prompt plus requested tokens exceed the model's context."""

    reason = Reason.CONTEXT_TOO_LONG


class MessageTooLargeError(Memory3Error):
    """One message is larger than the server takes."""

    reason = Reason.MESSAGE_TOO_LARGE


class UnknownBankError(Memory3Error):
    """No bank of that name."""

    reason = Reason.UNKNOWN_BANK


class UnknownDocumentError(Memory3Error):
    """No document of that id in the bank."""

    reason = Reason.UNKNOWN_DOCUMENT


class UnknownReferenceError(Memory3Error):
    """No reference of that id in the bank."""

    reason = Reason.UNKNOWN_REFERENCE


class UnknownMemoryError(Memory3Error):
    """No memory of that identity in the store."""

    reason = Reason.UNKNOWN_MEMORY


class ModelMismatchError(Memory3Error):
    """Made for another model, plan, codec or embedder."""

    reason = Reason.MODEL_MISMATCH


class CorruptRecordError(Memory3Error):
    """A record fails its checksum or cannot be parsed."""

    reason = Reason.CORRUPT_RECORD


class OverloadedError(Memory3Error):
    """A queue is full; try again after `retry_after_ms`."""

    reason = Reason.OVERLOADED


class DeadlineExceededError(Memory3Error):
    """The deadline of the call passed."""

    reason = Reason.DEADLINE_EXCEEDED


class CancelledCallError(Memory3Error):
    """The call was cancelled by somebody else than this caller."""

    reason = Reason.CANCELLED


class BackendUnavailableError(Memory3Error):
    """A tier or backend does not answer."""

    reason = Reason.BACKEND_UNAVAILABLE


class StorageFullError(Memory3Error):
    """The store has no room left."""

    reason = Reason.STORAGE_FULL


class StorageDeniedError(Memory3Error):
    """The store refuses writes or the credentials."""

    reason = Reason.STORAGE_DENIED


class ConflictingRecordError(Memory3Error):
    """A record under this identity exists and its bytes differ."""

    reason = Reason.CONFLICTING_RECORD


class InternalError(Memory3Error):
    """The server's own fault."""

    reason = Reason.INTERNAL


class UnauthenticatedError(Memory3Error):
    """The call has no token, or one that the server does not know."""

    reason = Reason.UNAUTHENTICATED


class PermissionDeniedError(Memory3Error):
    """The call's token does not have the right that the call needs."""

    reason = Reason.PERMISSION_DENIED


@dataclass(frozen=True)
class Entry:
    """One row of the error table."""

    error: type[Memory3Error]
    code: grpc.StatusCode
    retriable: bool
    fault: Fault


_C = grpc.StatusCode
TABLE: dict[Reason, Entry] = {
    entry.error.reason: entry
    for entry in (
        Entry(MalformedRequestError, _C.INVALID_ARGUMENT, retriable=False, fault=Fault.CALLER),
        Entry(ContextTooLongError, _C.INVALID_ARGUMENT, retriable=False, fault=Fault.CALLER),
        Entry(MessageTooLargeError, _C.RESOURCE_EXHAUSTED, retriable=False, fault=Fault.CALLER),
        Entry(UnknownBankError, _C.NOT_FOUND, retriable=False, fault=Fault.CALLER),
        Entry(UnknownDocumentError, _C.NOT_FOUND, retriable=False, fault=Fault.CALLER),
        Entry(UnknownReferenceError, _C.NOT_FOUND, retriable=False, fault=Fault.CALLER),
        Entry(UnknownMemoryError, _C.NOT_FOUND, retriable=False, fault=Fault.CALLER),
        Entry(ModelMismatchError, _C.FAILED_PRECONDITION, retriable=False, fault=Fault.CALLER),
        Entry(CorruptRecordError, _C.DATA_LOSS, retriable=False, fault=Fault.SERVICE),
        Entry(OverloadedError, _C.RESOURCE_EXHAUSTED, retriable=True, fault=Fault.SERVICE),
        Entry(DeadlineExceededError, _C.DEADLINE_EXCEEDED, retriable=True, fault=Fault.SERVICE),
        Entry(CancelledCallError, _C.CANCELLED, retriable=True, fault=Fault.CALLER),
        Entry(BackendUnavailableError, _C.UNAVAILABLE, retriable=True, fault=Fault.DEPENDENCY),
        Entry(StorageFullError, _C.RESOURCE_EXHAUSTED, retriable=False, fault=Fault.DEPENDENCY),
        Entry(StorageDeniedError, _C.PERMISSION_DENIED, retriable=False, fault=Fault.DEPENDENCY),
        Entry(ConflictingRecordError, _C.ALREADY_EXISTS, retriable=False, fault=Fault.CALLER),
        Entry(InternalError, _C.INTERNAL, retriable=False, fault=Fault.SERVICE),
        Entry(UnauthenticatedError, _C.UNAUTHENTICATED, retriable=False, fault=Fault.CALLER),
        Entry(PermissionDeniedError, _C.PERMISSION_DENIED, retriable=False, fault=Fault.CALLER),
    )
}
"""Reason -> class, gRPC code, retriable, fault. Total over `Reason`; a test holds it so."""

BY_CODE: dict[grpc.StatusCode, type[Memory3Error]] = {
    _C.CANCELLED: CancelledCallError,
    _C.UNKNOWN: InternalError,
    _C.INVALID_ARGUMENT: MalformedRequestError,
    _C.DEADLINE_EXCEEDED: DeadlineExceededError,
    _C.NOT_FOUND: UnknownReferenceError,
    _C.ALREADY_EXISTS: ConflictingRecordError,
    _C.PERMISSION_DENIED: PermissionDeniedError,
    _C.RESOURCE_EXHAUSTED: MessageTooLargeError,
    _C.FAILED_PRECONDITION: ModelMismatchError,
    _C.ABORTED: InternalError,
    _C.OUT_OF_RANGE: MalformedRequestError,
    _C.UNIMPLEMENTED: InternalError,
    _C.INTERNAL: InternalError,
    _C.UNAVAILABLE: BackendUnavailableError,
    _C.DATA_LOSS: CorruptRecordError,
    _C.UNAUTHENTICATED: UnauthenticatedError,
}
"""What a status without our details means: gRPC itself, or a proxy, made it. Total over the non-OK codes."""


def to_detail(error: Memory3Error) -> common_pb2.ErrorDetail:
    """The typed detail of an error, for a status or for one item of a batched answer."""
    return common_pb2.ErrorDetail(
        reason=common_pb2.ErrorReason.ValueType(error.reason),
        retriable=error.retriable,
        fault=common_pb2.Fault.ValueType(error.fault),
        retry_after_ms=error.retry_after_ms,
        message=str(error),
    )


def to_status(error: Memory3Error) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, text and trailing metadata with which a servicer aborts."""
    entry = TABLE[error.reason]
    packed = any_pb2.Any()
    packed.Pack(to_detail(error))
    status = status_pb2.Status(code=entry.code.value[0], message=str(error), details=[packed])
    return entry.code, str(error), ((DETAILS_KEY, status.SerializeToString()),)


_REMEDIES: dict[grpc.StatusCode, str] = {
    _C.UNAVAILABLE: "no answer; is the service running there, and do both ends agree on TLS (MEMORY3_TLS_CA)?",
    _C.DEADLINE_EXCEEDED: "the call's timeout has passed; give it more time or try again",
    _C.UNIMPLEMENTED: "the server does not know this call; use a server of the client's version",
    _C.RESOURCE_EXHAUSTED: "send less at once",
}
"""What to do about a status without our details; the others' own text has to do."""


def from_rpc_error(error: grpc.aio.AioRpcError, target: str) -> Memory3Error:
    """The exception a client raises for a failed call to `target`."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            typed = _from_status(value if isinstance(value, bytes) else value.encode())
            if typed is not None:
                return typed
    code = error.code()
    text = f"{code.name}: {error.details()}"
    text = f"{_REMEDIES[code]} ({text})" if code in _REMEDIES else text
    return BY_CODE.get(code, InternalError)(f"{target}: {text}")


def _from_status(serialised: bytes) -> Memory3Error | None:
    """The error in a google.rpc.Status; None if it holds none of ours, or one of a newer server."""
    try:
        details = status_pb2.Status.FromString(serialised).details
        for packed in details:
            detail = common_pb2.ErrorDetail()
            if packed.Unpack(detail) and int(detail.reason) in TABLE:
                retry = detail.retry_after_ms if detail.HasField("retry_after_ms") else None
                return TABLE[Reason(detail.reason)].error(detail.message, retry_after_ms=retry)
    except DecodeError:  # a proxy's own bytes under the same key
        return None
    return None
