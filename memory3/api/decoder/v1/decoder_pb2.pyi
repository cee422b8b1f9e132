from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_NONE: _ClassVar[Mode]
    MODE_RAG: _ClassVar[Mode]
    MODE_MEMORY: _ClassVar[Mode]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class MemoryStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_STATUS_UNSPECIFIED: _ClassVar[MemoryStatus]
    MEMORY_STATUS_READ: _ClassVar[MemoryStatus]
    MEMORY_STATUS_LATE: _ClassVar[MemoryStatus]
    MEMORY_STATUS_MISSING: _ClassVar[MemoryStatus]
    MEMORY_STATUS_REFUSED: _ClassVar[MemoryStatus]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_WORKER: _ClassVar[Tier]
    TIER_RAM: _ClassVar[Tier]
    TIER_OBJECT: _ClassVar[Tier]
    TIER_COLD: _ClassVar[Tier]

class WriteStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_STATUS_UNSPECIFIED: _ClassVar[WriteStatus]
    WRITE_STATUS_WRITTEN: _ClassVar[WriteStatus]
    WRITE_STATUS_EXISTED: _ClassVar[WriteStatus]
    WRITE_STATUS_FAILED: _ClassVar[WriteStatus]
MODE_UNSPECIFIED: Mode
MODE_NONE: Mode
MODE_RAG: Mode
MODE_MEMORY: Mode
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
MEMORY_STATUS_UNSPECIFIED: MemoryStatus
MEMORY_STATUS_READ: MemoryStatus
MEMORY_STATUS_LATE: MemoryStatus
MEMORY_STATUS_MISSING: MemoryStatus
MEMORY_STATUS_REFUSED: MemoryStatus
TIER_UNSPECIFIED: Tier
TIER_WORKER: Tier
TIER_RAM: Tier
TIER_OBJECT: Tier
TIER_COLD: Tier
WRITE_STATUS_UNSPECIFIED: WriteStatus
WRITE_STATUS_WRITTEN: WriteStatus
WRITE_STATUS_EXISTED: WriteStatus
WRITE_STATUS_FAILED: WriteStatus

class Message(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ...) -> None: ...

class Chat(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "chat", "bank", "mode", "sampling", "max_tokens", "stop", "recall_deadline_ms", "document_ids", "report_attention", "report_timeline", "memories_per_chunk")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RECALL_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    REPORT_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIMELINE_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_PER_CHUNK_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    chat: Chat
    bank: str
    mode: Mode
    sampling: Sampling
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    recall_deadline_ms: int
    document_ids: _containers.RepeatedScalarFieldContainer[str]
    report_attention: bool
    report_timeline: bool
    memories_per_chunk: int
    def __init__(self, prompt: _Optional[str] = ..., chat: _Optional[_Union[Chat, _Mapping]] = ..., bank: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., recall_deadline_ms: _Optional[int] = ..., document_ids: _Optional[_Iterable[str]] = ..., report_attention: _Optional[bool] = ..., report_timeline: _Optional[bool] = ..., memories_per_chunk: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("token", "recall", "final")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    token: TokenEvent
    recall: RecallEvent
    final: FinalEvent
    def __init__(self, token: _Optional[_Union[TokenEvent, _Mapping]] = ..., recall: _Optional[_Union[RecallEvent, _Mapping]] = ..., final: _Optional[_Union[FinalEvent, _Mapping]] = ...) -> None: ...

class TokenEvent(_message.Message):
    __slots__ = ("text", "token_ids")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class RecallEvent(_message.Message):
    __slots__ = ("span", "start_token", "memories", "retrieval_failed", "recall_ns", "stalled_ns")
    SPAN_FIELD_NUMBER: _ClassVar[int]
    START_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FAILED_FIELD_NUMBER: _ClassVar[int]
    RECALL_NS_FIELD_NUMBER: _ClassVar[int]
    STALLED_NS_FIELD_NUMBER: _ClassVar[int]
    span: int
    start_token: int
    memories: _containers.RepeatedCompositeFieldContainer[RecalledMemory]
    retrieval_failed: bool
    recall_ns: int
    stalled_ns: int
    def __init__(self, span: _Optional[int] = ..., start_token: _Optional[int] = ..., memories: _Optional[_Iterable[_Union[RecalledMemory, _Mapping]]] = ..., retrieval_failed: _Optional[bool] = ..., recall_ns: _Optional[int] = ..., stalled_ns: _Optional[int] = ...) -> None: ...

class RecalledMemory(_message.Message):
    __slots__ = ("reference_id", "document_id", "title", "text", "score", "status", "tier", "record_bytes")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RECORD_BYTES_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    document_id: str
    title: str
    text: str
    score: float
    status: MemoryStatus
    tier: Tier
    record_bytes: int
    def __init__(self, reference_id: _Optional[str] = ..., document_id: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., score: _Optional[float] = ..., status: _Optional[_Union[MemoryStatus, str]] = ..., tier: _Optional[_Union[Tier, str]] = ..., record_bytes: _Optional[int] = ...) -> None: ...

class FinalEvent(_message.Message):
    __slots__ = ("finish_reason", "usage", "timing", "spans", "seed", "timeline", "trace_id")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    seed: int
    timeline: _containers.RepeatedCompositeFieldContainer[TimelineEntry]
    trace_id: str
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., seed: _Optional[int] = ..., timeline: _Optional[_Iterable[_Union[TimelineEntry, _Mapping]]] = ..., trace_id: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("num_prompt_tokens", "num_output_tokens", "num_reference_tokens", "num_memories_read", "num_memories_late", "num_memories_missing", "num_recalls", "num_recalls_failed")
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_REFERENCE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_MEMORIES_READ_FIELD_NUMBER: _ClassVar[int]
    NUM_MEMORIES_LATE_FIELD_NUMBER: _ClassVar[int]
    NUM_MEMORIES_MISSING_FIELD_NUMBER: _ClassVar[int]
    NUM_RECALLS_FIELD_NUMBER: _ClassVar[int]
    NUM_RECALLS_FAILED_FIELD_NUMBER: _ClassVar[int]
    num_prompt_tokens: int
    num_output_tokens: int
    num_reference_tokens: int
    num_memories_read: int
    num_memories_late: int
    num_memories_missing: int
    num_recalls: int
    num_recalls_failed: int
    def __init__(self, num_prompt_tokens: _Optional[int] = ..., num_output_tokens: _Optional[int] = ..., num_reference_tokens: _Optional[int] = ..., num_memories_read: _Optional[int] = ..., num_memories_late: _Optional[int] = ..., num_memories_missing: _Optional[int] = ..., num_recalls: _Optional[int] = ..., num_recalls_failed: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("total_ns", "queue_ns", "ttft_ns", "recall_ns", "retrieve_ns", "fetch_ns", "load_ns", "stalled_ns", "prefill_ns", "decode_ns")
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    TTFT_NS_FIELD_NUMBER: _ClassVar[int]
    RECALL_NS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVE_NS_FIELD_NUMBER: _ClassVar[int]
    FETCH_NS_FIELD_NUMBER: _ClassVar[int]
    LOAD_NS_FIELD_NUMBER: _ClassVar[int]
    STALLED_NS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_NS_FIELD_NUMBER: _ClassVar[int]
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    total_ns: int
    queue_ns: int
    ttft_ns: int
    recall_ns: int
    retrieve_ns: int
    fetch_ns: int
    load_ns: int
    stalled_ns: int
    prefill_ns: int
    decode_ns: int
    def __init__(self, total_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., ttft_ns: _Optional[int] = ..., recall_ns: _Optional[int] = ..., retrieve_ns: _Optional[int] = ..., fetch_ns: _Optional[int] = ..., load_ns: _Optional[int] = ..., stalled_ns: _Optional[int] = ..., prefill_ns: _Optional[int] = ..., decode_ns: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("span", "start_token", "end_token", "reference_ids", "attention_mass")
    SPAN_FIELD_NUMBER: _ClassVar[int]
    START_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MASS_FIELD_NUMBER: _ClassVar[int]
    span: int
    start_token: int
    end_token: int
    reference_ids: _containers.RepeatedScalarFieldContainer[str]
    attention_mass: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, span: _Optional[int] = ..., start_token: _Optional[int] = ..., end_token: _Optional[int] = ..., reference_ids: _Optional[_Iterable[str]] = ..., attention_mass: _Optional[_Iterable[float]] = ...) -> None: ...

class TimelineEntry(_message.Message):
    __slots__ = ("name", "service", "parent", "start_ns", "duration_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    service: str
    parent: int
    start_ns: int
    duration_ns: int
    def __init__(self, name: _Optional[str] = ..., service: _Optional[str] = ..., parent: _Optional[int] = ..., start_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ...) -> None: ...

class GenerateOnceRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: GenerateRequest
    def __init__(self, request: _Optional[_Union[GenerateRequest, _Mapping]] = ...) -> None: ...

class GenerateOnceResponse(_message.Message):
    __slots__ = ("text", "recalls", "final")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECALLS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    text: str
    recalls: _containers.RepeatedCompositeFieldContainer[RecallEvent]
    final: FinalEvent
    def __init__(self, text: _Optional[str] = ..., recalls: _Optional[_Iterable[_Union[RecallEvent, _Mapping]]] = ..., final: _Optional[_Union[FinalEvent, _Mapping]] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("model", "model_fingerprint", "tokenizer", "max_context_tokens", "memory_plan_json", "memory_bytes", "dense_reference_bytes", "max_batch_size", "dtype", "total_ns")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DENSE_REFERENCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_fingerprint: str
    tokenizer: str
    max_context_tokens: int
    memory_plan_json: str
    memory_bytes: int
    dense_reference_bytes: int
    max_batch_size: int
    dtype: str
    total_ns: int
    def __init__(self, model: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., tokenizer: _Optional[str] = ..., max_context_tokens: _Optional[int] = ..., memory_plan_json: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., dense_reference_bytes: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., dtype: _Optional[str] = ..., total_ns: _Optional[int] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("bank", "references")
    BANK_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    bank: str
    references: _containers.RepeatedCompositeFieldContainer[WriteReference]
    def __init__(self, bank: _Optional[str] = ..., references: _Optional[_Iterable[_Union[WriteReference, _Mapping]]] = ...) -> None: ...

class WriteReference(_message.Message):
    __slots__ = ("reference_id", "text", "preceding")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PRECEDING_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    text: str
    preceding: str
    def __init__(self, reference_id: _Optional[str] = ..., text: _Optional[str] = ..., preceding: _Optional[str] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("results", "total_ns", "encode_ns", "put_ns")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    PUT_NS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[WriteResult]
    total_ns: int
    encode_ns: int
    put_ns: int
    def __init__(self, results: _Optional[_Iterable[_Union[WriteResult, _Mapping]]] = ..., total_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ..., put_ns: _Optional[int] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("reference_id", "status", "size_bytes", "error")
    REFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    reference_id: str
    status: WriteStatus
    size_bytes: int
    error: str
    def __init__(self, reference_id: _Optional[str] = ..., status: _Optional[_Union[WriteStatus, str]] = ..., size_bytes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...
