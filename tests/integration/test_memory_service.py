"""MemoryService over real gRPC, on a folder: every RPC, its effects, limits and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from memory3 import semconv
from memory3.api.common.v1 import common_pb2
from memory3.api.memory.v1 import memory_pb2, memory_pb2_grpc
from memory3.errors import (
    ConflictingRecordError,
    CorruptRecordError,
    MalformedRequestError,
    Memory3Error,
    MessageTooLargeError,
    ModelMismatchError,
)
from memory3.memory import MemoryClient
from memory3.memory_pool import MemoryPool
from memory3.types import FetchedRecord, FetchStatus, MemoryEntry, Tier
from services.common.config import ServerSettings
from services.common.server import running_server
from services.memory.__main__ import mounts
from services.memory.core import Limits, MemoryCore
from services.memory.folder_store import FolderStore
from services.memory.layout import Identity, object_key
from services.memory.ram_tier import RamTier
from tests.helpers.memory_records import FINGERPRINT, OTHER_FINGERPRINT, make_record, reference_id
from tests.helpers.otlp_receiver import is_rpc, otlp_receiver
from tests.helpers.processes import service_process

MiB = 1024 * 1024
BANK = "notes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "memories"


@pytest.fixture
async def core(folder: Path) -> AsyncIterator[MemoryCore]:
    store = FolderStore(folder, threads=4)
    await store.check()
    yield MemoryCore(store, RamTier(8 * MiB), Limits(8, 64 * MiB, 2.0))
    await store.close()


@pytest.fixture(params=["one address", "two pods"])
async def client(core: MemoryCore, request: pytest.FixtureRequest) -> AsyncIterator[MemoryClient]:
    """Both clients of the tier, held to the same promises."""
    settings = ServerSettings(port=0, drain_seconds=0.2)
    async with running_server(settings, mounts(core)) as server, running_server(settings, mounts(core)) as other:

        async def resolve(_: str, __: int) -> list[str]:
            return [server.address, other.address]

        one = request.param == "one address"
        async with MemoryClient(server.address) if one else MemoryPool(server.address, resolve=resolve) as memory:
            yield memory


async def put(
    client: MemoryClient, number: int, fingerprint: str = FINGERPRINT, bank: str = BANK, seed: int = 0
) -> bool:
    record = make_record(number, fingerprint=fingerprint, seed=seed)
    return await client.put(bank, reference_id(number), fingerprint, record)


async def fetch(client: MemoryClient, *numbers: int, fingerprint: str = FINGERPRINT) -> dict[str, FetchedRecord]:
    ids = [reference_id(number) for number in numbers]
    items = [item async for item in client.batch_get(BANK, fingerprint, ids)]
    found = {item.reference_id: item for item in items}
    assert len(found) == len(items), "an id was answered twice"
    return found


async def test_what_was_put_is_read_from_the_store_then_from_ram(client: MemoryClient) -> None:
    assert await put(client, 1)
    for tier in (Tier.OBJECT, Tier.RAM):
        item = (await fetch(client, 1))[reference_id(1)]
        assert (item.status, item.tier, item.record) == (FetchStatus.FOUND, tier, make_record(1))
        assert item.elapsed_ns > 0


async def test_an_equal_record_is_success_and_another_one_a_conflict(client: MemoryClient) -> None:
    assert await put(client, 1)
    assert not await put(client, 1)
    with pytest.raises(ConflictingRecordError):
        await put(client, 1, seed=1)
    assert (await fetch(client, 1))[reference_id(1)].record == make_record(1)


async def test_each_distinct_id_of_a_batch_is_answered_once_with_its_own_status(client: MemoryClient) -> None:
    for number in range(40):
        await put(client, number)
    await fetch(client, *range(10))  # these are in RAM now
    items = await fetch(client, *range(50), *range(50))
    assert [items[reference_id(n)].status for n in range(50)] == [FetchStatus.FOUND] * 40 + [FetchStatus.MISSING] * 10
    assert [items[reference_id(n)].tier for n in range(50)] == [Tier.RAM] * 10 + [Tier.OBJECT] * 30 + [Tier.NONE] * 10
    assert all(items[reference_id(n)].record == (make_record(n) if n < 40 else b"") for n in range(50))


@pytest.mark.parametrize("how", ["leave", "deadline"])
async def test_a_caller_that_goes_away_frees_what_it_held(core: MemoryCore, client: MemoryClient, how: str) -> None:
    record = make_record(1, payload_bytes=MiB)
    await client.put(BANK, reference_id(1), FINGERPRINT, record)
    for number in range(2, 40):
        await client.put(BANK, reference_id(number), FINGERPRINT, make_record(number, payload_bytes=MiB))
    ids = [reference_id(number) for number in range(1, 40)]
    items = client.batch_get(BANK, FINGERPRINT, ids, timeout=30 if how == "leave" else 2)
    await anext(items)
    async with asyncio.timeout(10):
        while core.bytes_in_flight == 0:  # the server is stuck in sending: nobody reads on
            await asyncio.sleep(0.01)
        if how == "leave":
            await items.aclose()
        while core.bytes_in_flight > 0:
            await asyncio.sleep(0.01)
    await items.aclose()


async def test_a_record_whose_checksum_is_wrong_is_refused(client: MemoryClient) -> None:
    record = bytearray(make_record(1))
    record[-1] ^= 1
    with pytest.raises(CorruptRecordError):
        await client.put(BANK, reference_id(1), FINGERPRINT, bytes(record))
    assert (await fetch(client, 1))[reference_id(1)].status is FetchStatus.MISSING


@pytest.mark.parametrize(("number", "fingerprint"), [(2, FINGERPRINT), (1, OTHER_FINGERPRINT)])
async def test_a_record_of_another_identity_is_refused(client: MemoryClient, number: int, fingerprint: str) -> None:
    with pytest.raises(ModelMismatchError):
        await client.put(BANK, reference_id(number), fingerprint, make_record(1))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "extended", "huge"])
async def test_a_damaged_object_is_never_sent_and_a_put_replaces_it(
    client: MemoryClient, folder: Path, damage: str
) -> None:
    await put(client, 1)
    file = folder / object_key(Identity(BANK, reference_id(1), FINGERPRINT))
    sound = file.read_bytes()
    flipped = sound[:-7] + bytes([sound[-7] ^ 0x10]) + sound[-6:]
    kinds = {"flipped": flipped, "cut": sound[:-9], "empty": b"", "extended": sound + b"x", "huge": sound * 4000}
    file.write_bytes(kinds[damage])
    for _ in range(2):  # the second look must not find it in RAM
        item = (await fetch(client, 1))[reference_id(1)]
        assert (item.status, item.tier, item.record) == (FetchStatus.CORRUPT, Tier.NONE, b"")
    assert await put(client, 1)
    assert (await fetch(client, 1))[reference_id(1)].record == sound


async def test_an_object_of_another_identity_is_a_mismatch_and_a_put_replaces_it(
    client: MemoryClient, folder: Path
) -> None:
    await put(client, 1)
    file = folder / object_key(Identity(BANK, reference_id(1), FINGERPRINT))
    file.write_bytes(make_record(1, fingerprint=OTHER_FINGERPRINT))
    item = (await fetch(client, 1))[reference_id(1)]
    assert (item.status, item.record) == (FetchStatus.MISMATCH, b"")
    assert await put(client, 1)
    assert (await fetch(client, 1))[reference_id(1)].status is FetchStatus.FOUND


async def test_a_record_of_a_later_format_is_not_used_and_not_replaced(client: MemoryClient, folder: Path) -> None:
    await put(client, 1)
    file = folder / object_key(Identity(BANK, reference_id(1), FINGERPRINT))
    later = bytearray(file.read_bytes())
    later[8:10] = (999).to_bytes(2, "little")
    file.write_bytes(later)
    assert (await fetch(client, 1))[reference_id(1)].status is FetchStatus.CORRUPT
    with pytest.raises(ConflictingRecordError):
        await put(client, 1)
    assert file.read_bytes() == later


async def test_stat_answers_in_the_order_of_the_ids(client: MemoryClient) -> None:
    await put(client, 1)
    ids = [reference_id(number) for number in (2, 1, 3, 1)]
    stats = await client.stat(BANK, FINGERPRINT, ids)
    size = len(make_record(1))
    assert [(s.reference_id, s.exists, s.size_bytes) for s in stats] == [
        (ids[0], False, 0), (ids[1], True, size), (ids[2], False, 0), (ids[3], True, size)
    ]  # fmt: skip


async def test_delete_of_references_takes_all_models_or_one(client: MemoryClient) -> None:
    for number in (1, 2, 3):
        await put(client, number)
        await put(client, number, OTHER_FINGERPRINT)
        await fetch(client, number)  # into RAM
    assert await client.delete(BANK, [reference_id(1)], model_fingerprint=OTHER_FINGERPRINT) == 1
    assert await client.delete(BANK, [reference_id(2), reference_id(9)]) == 2
    assert await client.delete(BANK, [reference_id(2)]) == 0
    left = {(entry.reference_id, entry.model_fingerprint) async for entry in client.list(BANK)}
    assert left == {
        (reference_id(1), FINGERPRINT),
        (reference_id(3), FINGERPRINT),
        (reference_id(3), OTHER_FINGERPRINT),
    }
    items = await fetch(client, 1, 2, 3)
    assert [items[reference_id(n)].status for n in (1, 2, 3)] == [
        FetchStatus.FOUND, FetchStatus.MISSING, FetchStatus.FOUND
    ]  # fmt: skip


async def test_delete_of_a_bank_leaves_others_and_no_folder_behind(client: MemoryClient, folder: Path) -> None:
    for number in range(250):
        await put(client, number)
    await put(client, 1, bank="notes-2")
    assert await client.delete(BANK, model_fingerprint=OTHER_FINGERPRINT, whole_bank=True) == 0
    assert await client.delete(BANK, whole_bank=True) == 250
    assert [entry async for entry in client.list(BANK)] == []
    assert [path.name for path in (folder / "banks").iterdir()] == ["notes-2"]
    assert await client.delete(BANK, whole_bank=True) == 0


@pytest.mark.parametrize("page_size", [1, 7, 20, 1000])
async def test_list_pages_by_key(client: MemoryClient, page_size: int) -> None:
    for number in range(20):
        await put(client, number)
    await put(client, 3, OTHER_FINGERPRINT)
    size = len(make_record(0))
    expected = sorted([(reference_id(n), FINGERPRINT) for n in range(20)] + [(reference_id(3), OTHER_FINGERPRINT)])
    entries = [entry async for entry in client.list(BANK, page_size=page_size)]
    assert entries == [MemoryEntry(BANK, reference, model, size) for reference, model in expected]
    only = [entry.reference_id async for entry in client.list(BANK, OTHER_FINGERPRINT, page_size=page_size)]
    assert only == [reference_id(3)]


async def test_the_last_page_has_no_token(client: MemoryClient) -> None:
    for number in range(4):
        await put(client, number)
    stub = memory_pb2_grpc.MemoryServiceStub(client.channel)
    page = await stub.List(memory_pb2.ListRequest(bank=BANK, page_size=2))
    assert page.next_page_token
    page = await stub.List(memory_pb2.ListRequest(bank=BANK, page_size=2, page_token=page.next_page_token))
    assert (len(page.memories), page.next_page_token) == (2, "")


MALFORMED = {
    "a bank that is a path": lambda c: c.put("../x", reference_id(1), FINGERPRINT, make_record(1)),
    "an empty bank": lambda c: c.stat("", FINGERPRINT, [reference_id(1)]),
    "an id that is a path": lambda c: c.put(BANK, "../" + reference_id(1)[3:], FINGERPRINT, make_record(1)),
    "an upper-case id": lambda c: c.stat(BANK, FINGERPRINT, [reference_id(1).upper()]),
    "a short fingerprint": lambda c: c.stat(BANK, "abc", [reference_id(1)]),
    "an empty record": lambda c: c.put(BANK, reference_id(1), FINGERPRINT, b""),
    "a record beyond 3 MiB": lambda c: c.put(BANK, reference_id(1), FINGERPRINT, bytes(3 * MiB + 1)),
    "no ids": lambda c: c.stat(BANK, FINGERPRINT, []),
    "too many ids": lambda c: c.stat(BANK, FINGERPRINT, [reference_id(1)] * 4097),
    "a delete of nothing": lambda c: c.delete(BANK),
    "a delete of all and some": lambda c: c.delete(BANK, [reference_id(1)], whole_bank=True),
    "a page too large": lambda c: anext(c.list(BANK, page_size=1001)),
    "no ids to fetch": lambda c: anext(c.batch_get(BANK, FINGERPRINT, [])),
    "too many ids to fetch": lambda c: anext(c.batch_get(BANK, FINGERPRINT, [reference_id(1)] * 1025)),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_requests_are_refused_with_a_reason(client: MemoryClient, case: str) -> None:
    with pytest.raises(MalformedRequestError):
        await MALFORMED[case](client)


async def test_a_foreign_page_token_is_refused(client: MemoryClient) -> None:
    stub = memory_pb2_grpc.MemoryServiceStub(client.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.List(memory_pb2.ListRequest(bank=BANK, page_token="../../etc/passwd"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_beyond_the_limit_of_grpc_is_refused(client: MemoryClient) -> None:
    with pytest.raises(MessageTooLargeError):
        await client.put(BANK, reference_id(1), FINGERPRINT, bytes(5 * MiB))


async def test_a_record_of_the_largest_size_passes(client: MemoryClient) -> None:
    overhead = len(make_record(1, payload_bytes=0))
    record = make_record(1, payload_bytes=3 * MiB - overhead)
    assert await client.put(BANK, reference_id(1), FINGERPRINT, record)
    assert (await fetch(client, 1))[reference_id(1)].record == record


async def test_racing_puts_of_different_records_have_one_winner(client: MemoryClient) -> None:
    async def attempt(seed: int) -> bool | Memory3Error:
        try:
            return await put(client, 1, seed=seed)
        except ConflictingRecordError as error:
            return error

    outcomes = await asyncio.gather(*(attempt(seed) for seed in range(8)))
    assert [outcome is True for outcome in outcomes].count(True) == 1
    winner = make_record(1, seed=[outcome is True for outcome in outcomes].index(True))
    assert (await fetch(client, 1))[reference_id(1)].record == winner


async def test_racing_puts_over_a_damaged_object_have_one_winner(client: MemoryClient, folder: Path) -> None:
    await put(client, 1)
    (folder / object_key(Identity(BANK, reference_id(1), FINGERPRINT))).write_bytes(b"damaged")
    outcomes = await asyncio.gather(*(put(client, 1, seed=seed) for seed in range(8)), return_exceptions=True)
    assert [outcome is True for outcome in outcomes].count(True) == 1
    assert sum(isinstance(outcome, ConflictingRecordError) for outcome in outcomes) == 7


async def test_spans_of_both_tiers_lie_under_the_caller_and_metrics_are_exported(tmp_path: Path) -> None:
    """The service as a process, a real OTLP receiver, and a caller that is a trace context only."""
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    traced = (("traceparent", f"00-{trace_id}-{caller}-01"),)
    with otlp_receiver() as receiver:
        env = {
            "MEMORY3_MEMORY_PORT": "0",
            "MEMORY3_MEMORY_STORE_URI": str(tmp_path / "memories"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with service_process("services.memory", env, tmp_path / "log") as service:
            async with grpc.aio.insecure_channel(service.address) as channel:
                stub = memory_pb2_grpc.MemoryServiceStub(channel)
                identity = common_pb2.MemoryIdentity(
                    bank=BANK, reference_id=reference_id(1), model_fingerprint=FINGERPRINT
                )
                await stub.Put(memory_pb2.PutRequest(identity=identity, record=make_record(1)))
                ids = [reference_id(1), reference_id(2)]
                request = memory_pb2.BatchGetRequest(bank=BANK, model_fingerprint=FINGERPRINT, reference_ids=ids)
                assert len([item async for item in stub.BatchGet(request, metadata=traced)]) == 2
                assert await asyncio.to_thread(receiver.wait, lambda: len(receiver.spans(trace_id)) >= 4, 20.0)
                exported = {
                    semconv.METRIC_FETCH[0],
                    semconv.METRIC_FETCH_BYTES[0],
                    semconv.METRIC_PUT[0],
                    semconv.METRIC_RAM_BYTES[0],
                    semconv.METRIC_RAM_LIMIT[0],
                    semconv.METRIC_IN_FLIGHT_BYTES[0],
                    semconv.METRIC_IN_FLIGHT_LIMIT[0],
                    semconv.METRIC_STORE_DOWN[0],
                }
                assert await asyncio.to_thread(
                    receiver.wait, lambda: exported <= receiver.metrics(semconv.SERVICE_MEMORY), 20.0
                )
        spans = receiver.spans(trace_id)
    (server,) = (span for span in spans if span.parent_id == caller)
    tiers = {(span.name, span.attributes.get(semconv.ATTR_STATUS)): span for span in spans if not is_rpc(span)}
    assert set(tiers) == {
        (semconv.SPAN_TIER_RAM, None),
        (semconv.SPAN_TIER_OBJECT, "found"),
        (semconv.SPAN_TIER_OBJECT, "missing"),
    }
    assert {span.parent_id for span in tiers.values()} == {server.span_id}
    assert {span.service for span in spans} == {semconv.SERVICE_MEMORY}
    assert tiers[semconv.SPAN_TIER_OBJECT, "found"].attributes[semconv.ATTR_BYTES] == len(make_record(1))
    assert tiers[semconv.SPAN_TIER_RAM, None].attributes[semconv.ATTR_NUM_HITS] == 0
