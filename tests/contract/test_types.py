"""The domain types against the wire: nothing is lost either way, and no new number crashes a client."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from memory3 import types
from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.errors import MalformedRequestError

PAIRS: list[tuple[type, type[Message]]] = [
    (types.Reference, retrieval_pb2.Reference),
    (types.Hit, retrieval_pb2.Hit),
    (types.RetrieveTiming, retrieval_pb2.Timing),
    (types.RetrieveResult, retrieval_pb2.RetrieveResponse),
    (types.EmbedResult, retrieval_pb2.EmbedResponse),
    (types.UpsertResult, retrieval_pb2.UpsertResponse),
    (types.DeleteResult, retrieval_pb2.DeleteResponse),
    (types.Document, retrieval_pb2.Document),
    (types.Bank, retrieval_pb2.Bank),
    (types.FetchedRecord, memory_pb2.BatchGetResponse),
    (types.MemoryStat, memory_pb2.MemoryStat),
    (types.MemoryEntry, memory_pb2.MemoryEntry),
    (types.Message, decoder_pb2.Message),
    (types.Sampling, decoder_pb2.Sampling),
    (types.GenerationRequest, decoder_pb2.GenerateRequest),
    (types.TokenEvent, decoder_pb2.TokenEvent),
    (types.RecalledMemory, decoder_pb2.RecalledMemory),
    (types.RecallEvent, decoder_pb2.RecallEvent),
    (types.FinalEvent, decoder_pb2.FinalEvent),
    (types.Generation, decoder_pb2.GenerateOnceResponse),
    (types.WriteItem, decoder_pb2.WriteResult),
    (types.WriteResult, decoder_pb2.WriteResponse),
    (types.DecoderInfo, decoder_pb2.InfoResponse),
]
ENUMS: list[tuple[type[enum.IntEnum], Any, str]] = [
    (types.FetchStatus, memory_pb2.FetchStatus, "FETCH_STATUS_"),
    (types.Tier, decoder_pb2.Tier, "TIER_"),
    (types.Mode, decoder_pb2.Mode, "MODE_"),
    (types.FinishReason, decoder_pb2.FinishReason, "FINISH_REASON_"),
    (types.MemoryStatus, decoder_pb2.MemoryStatus, "MEMORY_STATUS_"),
    (types.WriteStatus, decoder_pb2.WriteStatus, "WRITE_STATUS_"),
]
_F = FieldDescriptor
_NUMBERS = {
    _F.TYPE_UINT32: st.integers(0, 2**32 - 1),
    _F.TYPE_UINT64: st.integers(0, 2**64 - 1),
    _F.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_STRING: st.text(max_size=8),
    _F.TYPE_BYTES: st.binary(max_size=8),
}


@st.composite
def messages(draw: st.DrawFn, cls: type[Message]) -> Message:
    """Any message of the class with known enum numbers; every field is set, set to zero or left out."""
    pb = cls()
    taken: set[str] = set()
    for field in cls.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            continue
        if oneof is not None and not draw(st.booleans()):
            continue
        if oneof is not None:
            taken.add(oneof.name)
        count = draw(st.integers(0, 2)) if field.is_repeated else 1
        values = [draw(_values(field)) for _ in range(count)]
        if field.type == _F.TYPE_MESSAGE and not field.is_repeated:
            getattr(pb, field.name).CopyFrom(values[0])
        elif field.is_repeated:
            getattr(pb, field.name).extend(values)
        else:
            setattr(pb, field.name, values[0])
    return pb


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == _F.TYPE_MESSAGE:
        return messages(field.message_type._concrete_class)
    if field.type == _F.TYPE_ENUM:
        # Modes and roles must be chosen: zero is refused, see below.
        chosen = field.enum_type.name in ("Mode", "Role")
        return st.sampled_from([value.number for value in field.enum_type.values if value.number or not chosen])
    return _NUMBERS[field.type]


@pytest.mark.parametrize(("domain", "wire"), PAIRS, ids=[domain.__name__ for domain, _ in PAIRS])
def test_what_comes_from_the_wire_goes_back_unchanged(domain: Any, wire: type[Message]) -> None:
    @given(messages(wire))
    def check(pb: Message) -> None:
        if isinstance(pb, decoder_pb2.GenerateRequest) and pb.WhichOneof("input") == "chat" and not pb.chat.messages:
            pb.ClearField("chat")  # an empty conversation is no input
        once = domain.from_pb(pb)
        assert canonical(once.to_pb()) == canonical(pb)
        assert domain.from_pb(once.to_pb()) == once

    check()


def canonical(pb: Message) -> Message:
    """The same message with every plain sub-message present: absent and empty mean the same there."""
    copy = type(pb)()
    copy.CopyFrom(pb)
    for field in pb.DESCRIPTOR.fields:
        if field.type != _F.TYPE_MESSAGE or field.containing_oneof is not None:
            continue
        if field.is_repeated:
            items = [canonical(item) for item in getattr(copy, field.name)]
            copy.ClearField(field.name)
            getattr(copy, field.name).extend(items)
        else:
            getattr(copy, field.name).CopyFrom(canonical(getattr(copy, field.name)))
    return copy


@pytest.mark.parametrize("kind", ["token", "recall", "final"])
def test_events_go_there_and_back(kind: str) -> None:
    field = decoder_pb2.GenerateResponse.DESCRIPTOR.fields_by_name[kind]

    @given(_values(field))
    def check(pb: Message) -> None:
        event = types.event_from_pb(decoder_pb2.GenerateResponse(**{kind: pb}))
        assert event is not None
        assert types.event_from_pb(types.event_to_pb(event)) == event

    check()


def test_every_answer_and_item_of_the_contract_has_a_domain_type() -> None:
    covered = {wire.DESCRIPTOR.full_name for _, wire in PAIRS}
    parts = {"Usage", "Timing", "Span", "TimelineEntry", "Chat", "QueryResult", "WriteReference", "GenerateResponse"}
    plain = {"PutResponse", "StatResponse", "ListResponse", "ListDocumentsResponse", "ListBanksResponse"}
    answers = {"DescribeBankResponse", "GetReferencesResponse"} | plain
    missing = [
        message.full_name
        for module in (retrieval_pb2, memory_pb2, decoder_pb2)
        for message in module.DESCRIPTOR.message_types_by_name.values()
        if message.full_name not in covered
        and message.name not in parts | answers
        and not (message.name.endswith("Request"))
    ]
    assert missing == ["memory3.api.memory.v1.DeleteResponse"]  # an int in MemoryClient.delete


@pytest.mark.parametrize(("ours", "theirs", "prefix"), ENUMS, ids=[ours.__name__ for ours, _, _ in ENUMS])
def test_enums_equal_the_contract(ours: type[enum.IntEnum], theirs: Any, prefix: str) -> None:
    wire = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: member.value for member in ours if member.value} == wire


@pytest.mark.parametrize("ours", [ours for ours, _, _ in ENUMS if ours is not types.Mode])
@pytest.mark.parametrize("number", [-1, 77])
def test_a_number_of_a_newer_server_is_unknown_and_no_error(ours: type[enum.IntEnum], number: int) -> None:
    assert ours(number) is ours(0)


def test_a_message_with_new_numbers_everywhere_is_read() -> None:
    memory = decoder_pb2.RecalledMemory(reference_id="r", status=77, tier=77)  # type: ignore[arg-type]
    final = decoder_pb2.FinalEvent(finish_reason=77)  # type: ignore[arg-type]
    got = types.Generation.from_pb(
        decoder_pb2.GenerateOnceResponse(recalls=[decoder_pb2.RecallEvent(memories=[memory])], final=final)
    )
    assert got.final.finish_reason is types.FinishReason.UNKNOWN
    assert got.recalls[0].memories[0].tier is types.Tier.NONE
    record = memory_pb2.BatchGetResponse(status=77, tier=77)  # type: ignore[arg-type]
    assert types.FetchedRecord.from_pb(record).status is types.FetchStatus.UNKNOWN


@pytest.mark.parametrize("number", [0, 77])
def test_a_request_must_choose_a_mode_and_roles(number: int) -> None:
    request = decoder_pb2.GenerateRequest(prompt="x", mode=number)  # type: ignore[arg-type]
    with pytest.raises(MalformedRequestError, match=f"mode {number} is none of"):
        types.GenerationRequest.from_pb(request)
    message = decoder_pb2.Message(role=number, content="x")  # type: ignore[arg-type]
    request = decoder_pb2.GenerateRequest(chat={"messages": [message]}, mode=decoder_pb2.MODE_NONE)
    with pytest.raises(MalformedRequestError, match=f"role {number} is none of"):
        types.GenerationRequest.from_pb(request)


def test_domain_types_are_frozen() -> None:
    classes = [cls for cls in vars(types).values() if dataclasses.is_dataclass(cls)]
    assert [cls for cls in classes if not cls.__dataclass_params__.frozen] == []  # type: ignore[attr-defined]
