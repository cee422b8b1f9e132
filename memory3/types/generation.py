"""What a generation is asked for, and the events of its stream. Knows no model and no recall policy."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from memory3.api.decoder.v1 import decoder_pb2
from memory3.errors import MalformedRequestError
from memory3.types.memory import Tier
from memory3.types.wire import TolerantEnum, plain


class Mode(enum.IntEnum):
    """How references reach the model; numbers as in decoder.proto. Never guessed: an unknown number is an error."""

    NONE = 1
    RAG = 2
    MEMORY = 3


class FinishReason(TolerantEnum):
    """Why a generation ended; numbers as in decoder.proto."""

    UNKNOWN = 0
    END = 1
    STOP = 2
    LENGTH = 3


class MemoryStatus(TolerantEnum):
    """How one recalled memory fared; numbers as in decoder.proto."""

    UNKNOWN = 0
    READ = 1
    LATE = 2
    MISSING = 3
    REFUSED = 4


_ROLES: dict[decoder_pb2.Role, str] = {
    decoder_pb2.ROLE_SYSTEM: "system",
    decoder_pb2.ROLE_USER: "user",
    decoder_pb2.ROLE_ASSISTANT: "assistant",
}
_ROLE_NUMBERS = {name: number for number, name in _ROLES.items()}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str

    @classmethod
    def from_pb(cls, pb: decoder_pb2.Message) -> Message:
        if pb.role not in _ROLES:
            raise MalformedRequestError(
                f"role {int(pb.role)} is none of {list(_ROLES.values())}; give every message one of them"
            )
        return cls(_ROLES[pb.role], pb.content)

    def to_pb(self) -> decoder_pb2.Message:
        if self.role not in _ROLE_NUMBERS:
            raise MalformedRequestError(
                f"role {self.role!r} is none of {list(_ROLE_NUMBERS)}; give every message one of them"
            )
        return decoder_pb2.Message(role=_ROLE_NUMBERS[self.role], content=self.content)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the default is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 0.0
    seed: int | None = None

    @classmethod
    def from_pb(cls, pb: decoder_pb2.Sampling) -> Sampling:
        return cls(pb.temperature, pb.top_k, pb.top_p, pb.seed if pb.HasField("seed") else None)

    def to_pb(self) -> decoder_pb2.Sampling:
        return decoder_pb2.Sampling(**self.__dict__)


@dataclass(frozen=True)
class GenerationRequest:
    """One generation: exactly one of `prompt` and `messages`. Defaults and limits: decoder.proto."""

    mode: Mode
    prompt: str | None = None
    messages: Sequence[Message] = ()
    bank: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 0
    stop: Sequence[str] = ()
    recall_deadline_ms: int | None = None
    document_ids: Sequence[str] = ()
    report_attention: bool = False
    report_timeline: bool = False
    memories_per_chunk: int = 0

    @classmethod
    def from_pb(cls, pb: decoder_pb2.GenerateRequest) -> GenerationRequest:
        """Raises MalformedRequestError for a mode or role that is unspecified or not known here."""
        if int(pb.mode) not in [mode.value for mode in Mode]:
            choices = ", ".join(f"{mode.value} ({mode.name})" for mode in Mode)
            raise MalformedRequestError(f"mode {int(pb.mode)} is none of {choices}; choose one")
        return cls(
            mode=Mode(pb.mode),
            prompt=pb.prompt if pb.WhichOneof("input") == "prompt" else None,
            messages=[Message.from_pb(message) for message in pb.chat.messages],
            bank=pb.bank,
            sampling=Sampling.from_pb(pb.sampling),
            max_tokens=pb.max_tokens,
            stop=list(pb.stop),
            recall_deadline_ms=pb.recall_deadline_ms if pb.HasField("recall_deadline_ms") else None,
            document_ids=list(pb.document_ids),
            report_attention=pb.report_attention,
            report_timeline=pb.report_timeline,
            memories_per_chunk=pb.memories_per_chunk,
        )

    def to_pb(self) -> decoder_pb2.GenerateRequest:
        """Raises MalformedRequestError for an unknown role, or for both a prompt and messages."""
        if self.prompt is not None and self.messages:
            raise MalformedRequestError("both a prompt and messages were given; give one of them")
        rest = {name: value for name, value in self.__dict__.items() if name not in ("messages", "sampling")}
        chat = decoder_pb2.Chat(messages=[message.to_pb() for message in self.messages]) if self.messages else None
        return decoder_pb2.GenerateRequest(**rest, chat=chat, sampling=self.sampling.to_pb())


@dataclass(frozen=True)
class TokenEvent:
    """Newly generated text and the tokens since the event before; either may be empty."""

    text: str
    token_ids: Sequence[int]

    @classmethod
    def from_pb(cls, pb: decoder_pb2.TokenEvent) -> TokenEvent:
        return cls(pb.text, list(pb.token_ids))

    def to_pb(self) -> decoder_pb2.TokenEvent:
        return decoder_pb2.TokenEvent(**self.__dict__)


@dataclass(frozen=True)
class RecalledMemory:
    """One recalled memory; `record_bytes` is 0 where no record was fetched."""

    reference_id: str
    document_id: str
    title: str
    text: str
    score: float
    status: MemoryStatus
    tier: Tier
    record_bytes: int

    @classmethod
    def from_pb(cls, pb: decoder_pb2.RecalledMemory) -> RecalledMemory:
        return cls(**{**plain(cls, pb), "status": MemoryStatus(pb.status), "tier": Tier(pb.tier)})

    def to_pb(self) -> decoder_pb2.RecalledMemory:
        return decoder_pb2.RecalledMemory(**self.__dict__)


@dataclass(frozen=True)
class RecallEvent:
    """The references a span reads. Times in nanoseconds."""

    span: int
    start_token: int
    memories: Sequence[RecalledMemory]
    retrieval_failed: bool
    recall_ns: int
    stalled_ns: int

    @classmethod
    def from_pb(cls, pb: decoder_pb2.RecallEvent) -> RecallEvent:
        return cls(**{**plain(cls, pb), "memories": [RecalledMemory.from_pb(memory) for memory in pb.memories]})

    def to_pb(self) -> decoder_pb2.RecallEvent:
        return decoder_pb2.RecallEvent(**{**self.__dict__, "memories": [memory.to_pb() for memory in self.memories]})


@dataclass(frozen=True)
class Usage:
    """What was counted in one generation; the fields are explained in decoder.proto."""

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_reference_tokens: int = 0
    num_memories_read: int = 0
    num_memories_late: int = 0
    num_memories_missing: int = 0
    num_recalls: int = 0
    num_recalls_failed: int = 0


@dataclass(frozen=True)
class Timing:
    """Time by stage of one generation, nanoseconds; named like the spans."""

    total_ns: int = 0
    queue_ns: int = 0
    ttft_ns: int = 0
    recall_ns: int = 0
    retrieve_ns: int = 0
    fetch_ns: int = 0
    load_ns: int = 0
    stalled_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0


@dataclass(frozen=True)
class Span:
    """What the context tokens start_token..end_token (exclusive) read; `attention_mass` only if asked for."""

    span: int
    start_token: int
    end_token: int
    reference_ids: Sequence[str]
    attention_mass: Sequence[float] = ()

    @classmethod
    def from_pb(cls, pb: decoder_pb2.Span) -> Span:
        return cls(pb.span, pb.start_token, pb.end_token, list(pb.reference_ids), list(pb.attention_mass))


@dataclass(frozen=True)
class TimelineEntry:
    """One bar of a request's waterfall; nanoseconds from the arrival at the front."""

    name: str
    service: str
    parent: int | None
    start_ns: int
    duration_ns: int

    @classmethod
    def from_pb(cls, pb: decoder_pb2.TimelineEntry) -> TimelineEntry:
        return cls(**{**plain(cls, pb), "parent": pb.parent if pb.HasField("parent") else None})


@dataclass(frozen=True)
class FinalEvent:
    """The end of a generation."""

    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    spans: Sequence[Span]
    seed: int
    timeline: Sequence[TimelineEntry] = ()
    trace_id: str = ""

    @classmethod
    def from_pb(cls, pb: decoder_pb2.FinalEvent) -> FinalEvent:
        return cls(
            finish_reason=FinishReason(pb.finish_reason),
            usage=Usage(**plain(Usage, pb.usage)),
            timing=Timing(**plain(Timing, pb.timing)),
            spans=[Span.from_pb(span) for span in pb.spans],
            seed=pb.seed,
            timeline=[TimelineEntry.from_pb(entry) for entry in pb.timeline],
            trace_id=pb.trace_id,
        )

    def to_pb(self) -> decoder_pb2.FinalEvent:
        wire = {
            "usage": decoder_pb2.Usage(**self.usage.__dict__),
            "timing": decoder_pb2.Timing(**self.timing.__dict__),
            "spans": [decoder_pb2.Span(**span.__dict__) for span in self.spans],
            "timeline": [decoder_pb2.TimelineEntry(**entry.__dict__) for entry in self.timeline],
        }
        return decoder_pb2.FinalEvent(**{**self.__dict__, **wire})


GenerationEvent = TokenEvent | RecallEvent | FinalEvent


def event_to_pb(event: GenerationEvent) -> decoder_pb2.GenerateResponse:
    """One message of a Generate stream."""
    match event:
        case TokenEvent():
            return decoder_pb2.GenerateResponse(token=event.to_pb())
        case RecallEvent():
            return decoder_pb2.GenerateResponse(recall=event.to_pb())
        case FinalEvent():
            return decoder_pb2.GenerateResponse(final=event.to_pb())


def event_from_pb(pb: decoder_pb2.GenerateResponse) -> GenerationEvent | None:
    """The event of one message; None if a newer server sent a kind this version does not know."""
    match pb.WhichOneof("event"):
        case "token":
            return TokenEvent.from_pb(pb.token)
        case "recall":
            return RecallEvent.from_pb(pb.recall)
        case "final":
            return FinalEvent.from_pb(pb.final)
        case _:
            return None


@dataclass(frozen=True)
class Generation:
    """A whole generation, answered at once."""

    text: str
    recalls: Sequence[RecallEvent]
    final: FinalEvent

    @classmethod
    def from_pb(cls, pb: decoder_pb2.GenerateOnceResponse) -> Generation:
        return cls(pb.text, [RecallEvent.from_pb(recall) for recall in pb.recalls], FinalEvent.from_pb(pb.final))

    def to_pb(self) -> decoder_pb2.GenerateOnceResponse:
        return decoder_pb2.GenerateOnceResponse(
            text=self.text, recalls=[recall.to_pb() for recall in self.recalls], final=self.final.to_pb()
        )
