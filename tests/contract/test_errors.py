"""The one error table: total both ways, and every error arrives at a client as it left a real server."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

from memory3 import errors
from memory3.api.common.v1 import common_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.errors import BY_CODE, DETAILS_KEY, TABLE, Fault, InternalError, Memory3Error, Reason, UnknownBankError
from memory3.retrieval import RetrievalClient
from tests.helpers.recording_servicer import RecordingServer, recording_server

CLASSES = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, Memory3Error) and cls is not Memory3Error
]


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [(Reason, common_pb2.ErrorReason, "ERROR_REASON_"), (Fault, common_pb2.Fault, "FAULT_")],
    ids=["reason", "fault"],
)
def test_enums_equal_the_contract(ours: type[Reason | Fault], theirs: object, prefix: str) -> None:
    wire = {name.removeprefix(prefix): number for name, number in theirs.items() if number}  # type: ignore[attr-defined]
    assert {member.name: member.value for member in ours} == wire


def test_the_table_is_total_and_each_class_has_one_row() -> None:
    assert set(TABLE) == set(Reason)
    assert sorted(entry.error.__name__ for entry in TABLE.values()) == sorted(cls.__name__ for cls in CLASSES)
    assert [reason for reason, entry in TABLE.items() if entry.error.reason is not reason] == []


def test_every_status_code_has_a_class() -> None:
    assert set(BY_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_the_contract_names_the_code_of_each_reason() -> None:
    # The comment of each reason in common.proto names its gRPC code: the table must agree with what is promised.
    lines = Path(__file__).resolve().parents[2].joinpath("protos/memory3/api/common/v1/common.proto").read_text()
    comment = ""
    promised = {}
    for line in map(str.strip, lines.splitlines()):
        if line.startswith("//"):
            comment = line
        elif line.startswith("ERROR_REASON_"):
            name = line.split()[0].removeprefix("ERROR_REASON_")
            promised[name] = [
                code for code in grpc.StatusCode if f" {code.name}" in comment.replace(".", " ").replace(",", " ")
            ]
    promised.pop("UNSPECIFIED")
    assert {name: [entry.code] for name, entry in ((r.name, e) for r, e in TABLE.items())} == promised


def test_retriable_errors_are_those_a_client_can_wait_out() -> None:
    assert {reason for reason, entry in TABLE.items() if entry.retriable} == {
        Reason.OVERLOADED,
        Reason.DEADLINE_EXCEEDED,
        Reason.CANCELLED,
        Reason.BACKEND_UNAVAILABLE,
    }


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with recording_server() as recording:
        yield recording


@pytest.mark.parametrize("hint_ms", [None, 0, 1500])
@pytest.mark.parametrize("cls", CLASSES)
async def test_every_error_survives_the_wire(
    server: RecordingServer, cls: type[Memory3Error], hint_ms: int | None
) -> None:
    sent = cls("5 is over the limit of 4 – ask for less", retry_after_ms=hint_ms)
    server.reply("RetrievalService/ListBanks", sent)
    async with RetrievalClient(server.address, retry=False) as client:
        with pytest.raises(Memory3Error) as caught:
            await client.list_banks()
    got = caught.value
    assert (type(got), str(got), got.retry_after_ms) == (cls, str(sent), hint_ms)
    assert (got.retriable, got.fault) == (sent.retriable, sent.fault)


@pytest.mark.parametrize("code", list(BY_CODE))
async def test_every_bare_status_becomes_an_error_of_ours(server: RecordingServer, code: grpc.StatusCode) -> None:
    server.reply("RetrievalService/ListBanks", code)
    async with RetrievalClient(server.address, retry=False) as client:
        with pytest.raises(Memory3Error, match=f"{server.address}: .*{code.name}: made by the test") as caught:
            await client.list_banks()
    assert type(caught.value) is BY_CODE[code]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickling(cls: type[Memory3Error]) -> None:
    copy = pickle.loads(pickle.dumps(cls("message", retry_after_ms=7)))
    assert (type(copy), str(copy), copy.retry_after_ms) == (cls, "message", 7)


def rpc_error(code: grpc.StatusCode, details: bytes) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata((DETAILS_KEY, details)), details="text")


def status_with(detail: common_pb2.ErrorDetail | retrieval_pb2.Bank) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return bytes(status_pb2.Status(details=[packed]).SerializeToString())


def test_a_reason_of_a_newer_server_falls_back_to_the_code() -> None:
    detail = common_pb2.ErrorDetail(message="new")
    detail.reason = 4242  # type: ignore[assignment]
    got = errors.from_rpc_error(rpc_error(grpc.StatusCode.INTERNAL, status_with(detail)), "host:1")
    assert type(got) is InternalError


@pytest.mark.parametrize("details", [b"\xff\xff not a status", b"", status_with(retrieval_pb2.Bank(bank="b"))])
def test_foreign_details_fall_back_to_the_code(details: bytes) -> None:
    got = errors.from_rpc_error(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, details), "host:1")
    assert type(got) is BY_CODE[grpc.StatusCode.INVALID_ARGUMENT]


def test_our_detail_is_found_behind_foreign_ones() -> None:
    foreign, ours = any_pb2.Any(), any_pb2.Any()
    foreign.Pack(retrieval_pb2.Bank(bank="b"))
    ours.Pack(errors.to_detail(UnknownBankError("no bank 'x'")))
    details = status_pb2.Status(details=[foreign, ours]).SerializeToString()
    assert type(errors.from_rpc_error(rpc_error(grpc.StatusCode.NOT_FOUND, details), "host:1")) is UnknownBankError
