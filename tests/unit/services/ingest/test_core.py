"""The pipeline on in-memory tiers: order, resumption, replacement, failures."""

import asyncio

import pytest

from memory3.errors import (
    BackendUnavailableError,
    MalformedRequestError,
    ModelMismatchError,
    OverloadedError,
    StorageFullError,
)
from services.ingest.batching import BatchWriter
from services.ingest.chunk import Cutter
from services.ingest.core import Bounds, Pipeline, Warm
from services.ingest.documents import BadInput, SourceDocument
from services.ingest.progress import Progress, ProgressError
from services.ingest.retry import Tier
from tests.unit.services.ingest.fakes import FINGERPRINT, FakeTiers


def documents(count: int, text: str = "It was {n}. He was at {n}.", start: int = 0) -> list[SourceDocument]:
    return [SourceDocument(f"d{n}", f"T{n}", "s", text.format(n=n), 10) for n in range(start, start + count)]


@pytest.fixture
def tiers() -> FakeTiers:
    return FakeTiers()


@pytest.fixture
def ingest(tiers, tmp_path, counter):
    """Runs one ingest; the progress file is opened anew each time, as after a restart."""

    async def run(items, *, warm=True, bank="bank", cutter=None, fingerprint=FINGERPRINT, **bounds):
        tiers.warm = warm
        progress = Progress(tmp_path / "progress.sqlite")

        def tier(name: str) -> Tier:
            return Tier(name, "x:1", 0.0, sleep=lambda _: asyncio.sleep(0))

        writer = BatchWriter(bank, tiers, tier("decoder"), batch_references=8, parallelism=2, timeout_s=1)
        pipeline = Pipeline(
            bank,
            cutter or Cutter(counter, "small", 16),
            progress,
            index=(tiers, tier("retrieval")),
            memories=(tiers, tier("memory")),
            warm=Warm(writer, fingerprint) if warm else None,
            bounds=Bounds(**bounds),
        )
        try:
            return await asyncio.wait_for(pipeline.run(iter(items)), 30)
        finally:
            progress.close()

    return run


async def test_a_warm_run_writes_each_reference_once_and_then_indexes(ingest, tiers):
    summary = await ingest(documents(40))
    assert (summary.documents, summary.failures, summary.stopped) == (40, [], "")
    assert tiers.held() == tiers.memories == set(tiers.writes)
    assert set(tiers.writes.values()) == {1}
    assert summary.memories_written == len(tiers.memories)
    assert summary.references_indexed == summary.references == sum(len(rows) for _, rows in tiers.rows.values())


async def test_batches_are_filled_across_documents(ingest, tiers):
    all_read = asyncio.Event()
    loop, write = asyncio.get_running_loop(), tiers.write

    def items():
        yield from documents(20)
        loop.call_soon_threadsafe(all_read.set)

    async def slow(*arguments, **named):
        await all_read.wait()
        return await write(*arguments, **named)

    tiers.write = slow
    await ingest(items())
    assert max(tiers.batches) == 8


async def test_a_cold_run_only_indexes(ingest, tiers):
    summary = await ingest(documents(5), warm=False)
    assert summary.documents == len(tiers.rows) == 5
    assert not tiers.memories


async def test_a_second_run_sends_nothing(ingest, tiers):
    await ingest(documents(10))
    tiers.upserts.clear()
    tiers.batches.clear()
    summary = await ingest(documents(10))
    assert summary.documents_unchanged == summary.documents == 10
    assert not tiers.upserts
    assert not tiers.batches


async def test_warm_after_cold_writes_the_missing_memories_and_leaves_the_index(ingest, tiers):
    await ingest(documents(10), warm=False)
    recalled = sorted(tiers.held())[:3]
    tiers.memories.update(recalled)
    tiers.upserts.clear()
    summary = await ingest(documents(10))
    assert tiers.memories == tiers.held()
    assert not set(recalled) & set(tiers.writes.elements())
    assert summary.memories_existed == 3
    assert not tiers.upserts
    assert summary.documents_unchanged == 0


async def test_another_model_writes_its_own_memories(ingest, tiers):
    await ingest(documents(3))
    tiers.memories.clear()  # the store keeps memories by model; to the other model these are missing
    summary = await ingest(documents(3), fingerprint="e" * 32)
    assert summary.memories_written == len(tiers.held())


async def test_equal_references_are_written_once(ingest, tiers):
    same = [SourceDocument(f"d{n}", "", "s", "It was the same.") for n in range(20)]
    summary = await ingest(same)
    assert summary.documents == len(tiers.rows) == 20
    assert list(tiers.writes.values()) == [1]
    assert summary.doubles == 19


async def test_a_new_version_replaces_the_old_and_its_orphans_go(ingest, tiers):
    await ingest([*documents(2), SourceDocument("keeper", "", "s", "It was 0. He was at 0.")])
    before = set(tiers.memories)
    changed = SourceDocument("d1", "T1", "s", "They left.")
    summary = await ingest([changed])
    [reference] = tiers.rows["d1"][1]
    assert reference.text == "They left."
    assert tiers.memories == tiers.held()
    assert summary.memories_deleted == len(before - tiers.memories) > 0


async def test_a_text_that_moves_to_another_document_keeps_its_memory(ingest, tiers):
    """d0 drops the text and d1 takes it up in the same run: its memory must not go as d0's orphan."""
    await ingest([SourceDocument("d0", "", "s", "It was moved.")])
    summary = await ingest(
        [SourceDocument("d0", "", "s", "They left."), SourceDocument("d1", "", "s", "It was moved.")]
    )
    assert summary.memories_deleted == 0
    assert tiers.held() <= tiers.memories


async def test_orphans_of_a_run_cut_short_go_in_the_next(ingest, tiers):
    await ingest(documents(1))
    old = set(tiers.memories)

    def down(call, _):
        if call == "delete":
            raise BackendUnavailableError("down")

    tiers.before = down
    summary = await ingest([SourceDocument("d0", "T0", "s", "They left.")])
    assert "memory at x:1 has failed" in summary.stopped
    assert old <= tiers.memories
    tiers.before = lambda *_: None
    summary = await ingest([])
    assert summary.memories_deleted == len(old)
    assert tiers.memories == tiers.held()


async def test_a_deleted_bank_is_ingested_again_whatever_the_progress_file_says(ingest, tiers):
    await ingest(documents(4))
    tiers.rows.clear()
    tiers.memories.clear()
    summary = await ingest(documents(4))
    assert summary.documents_unchanged == 0
    assert tiers.held() == tiers.memories != set()


async def test_a_lost_memory_is_written_again(ingest, tiers):
    await ingest(documents(4))
    lost = sorted(tiers.memories)[0]
    tiers.memories.discard(lost)
    summary = await ingest(documents(4))
    assert lost in tiers.memories
    assert summary.documents_unchanged == 3


async def test_overload_and_short_outages_are_ridden_out(ingest, tiers):
    seen: dict[object, int] = {}

    def flaky(call, argument):
        key = (call, str(argument))
        seen[key] = seen.get(key, 0) + 1
        if call in ("write", "upsert") and seen[key] == 1:
            raise OverloadedError("full", retry_after_ms=1)

    tiers.before = flaky
    summary = await ingest(documents(10), failures_in_a_row=1)
    assert summary.stopped.startswith("decoder at x:1 has failed for 0 s"), "no patience: the first failure stops it"
    summary = await _patient(ingest, documents(10))
    assert (summary.failures, summary.stopped) == ([], "")
    assert tiers.held() == tiers.memories


async def _patient(ingest, items):
    original = Tier.__init__

    def patient(self, name, target, patience_s, **more):
        original(self, name, target, 3600.0, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tier, "__init__", patient)
        return await ingest(items)


async def test_one_refused_document_does_not_stop_the_rest(ingest, tiers):
    def refuse(call, argument):
        if call == "upsert" and argument == "d3":
            raise MalformedRequestError("title too long")

    tiers.before = refuse
    summary = await ingest(documents(8))
    assert summary.documents == 7
    assert [(f.source, f.reason) for f in summary.failures] == [("s", "title too long")]
    tiers.before = lambda *_: None
    summary = await ingest(documents(8))
    assert (summary.documents, summary.documents_unchanged, summary.memories_written) == (8, 7, 0)


async def test_a_reference_the_writer_refuses_fails_its_documents_only(ingest, tiers):
    poison = "It was the poison."
    tiers.refuse = lambda reference_id: "NaN" if reference_id in poisoned else ""
    from model.identity import reference_id

    poisoned = {reference_id(poison)}
    bad = [SourceDocument(f"p{n}", "", f"p{n}", poison) for n in range(3)]
    summary = await ingest([*documents(5), *bad])
    assert summary.documents == 5
    assert sorted(f.source for f in summary.failures) == ["p0", "p1", "p2"]
    assert {f.reason for f in summary.failures} == {"NaN"}
    assert not set(tiers.rows) & {"p0", "p1", "p2"}, "what has no memory is not indexed"


@pytest.mark.parametrize("error", [StorageFullError("disk full; free space"), ModelMismatchError("other embedder")])
async def test_what_would_fail_every_document_stops_the_run(ingest, tiers, error):
    def fail(call, _):
        if call == "upsert":
            raise error

    tiers.before = fail
    summary = await ingest(documents(500))
    assert summary.stopped == f"retrieval at x:1: {error}"
    assert summary.documents == 0


async def test_too_many_failures_in_a_row_stop_the_run(ingest, tiers):
    tiers.refuse = lambda _: "the store is full"
    summary = await ingest(documents(500), failures_in_a_row=5, documents_in_flight=4)
    assert "5 documents in a row failed, the last one because: the store is full" in summary.stopped
    assert len(summary.failures) < 20


async def test_a_progress_file_that_cannot_be_written_stops_the_run(ingest, monkeypatch):
    def fail(*_, **__):
        raise ProgressError("disk is full; make room")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finish", fail)
        assert (await ingest(documents(500))).stopped == "disk is full; make room"
    assert (await ingest(documents(500))).documents == 500


async def test_bad_inputs_are_counted_and_stop_nothing(ingest, tiers):
    items = [BadInput("b", "binary file"), *documents(1), BadInput("e", "empty", harmless=True)] * 1
    summary = await ingest([*items, *[BadInput(f"x{n}", "binary file") for n in range(100)]])
    assert (summary.documents, summary.documents_empty, len(summary.failures)) == (1, 1, 101)
    assert not summary.stopped


async def test_one_id_with_two_contents_is_refused(ingest, tiers):
    one, other = SourceDocument("d", "", "a", "It was one."), SourceDocument("d", "", "b", "It was other.")
    summary = await ingest([one, one, other])
    assert summary.documents == 2
    assert [f.source for f in summary.failures] == ["b"]
    assert "comes twice in this run" in summary.failures[0].reason


async def test_a_long_document_goes_in_parts_and_alone(ingest, tiers):
    text = " ".join(f"It was number {n} of the many." for n in range(300))
    summary = await ingest([*documents(3), SourceDocument("long", "", "s", text)], references_in_flight=10)
    assert tiers.upserts["long"] == -(-len(tiers.rows["long"][1]) // 32) > 2
    assert summary.documents == 4


async def test_the_number_of_documents_under_way_is_bounded(ingest, tiers):
    """The first three wait for one another, and then long enough for a fourth to come, if any may."""
    under_way = most = 0
    three = asyncio.Event()
    original = tiers.upsert

    async def slow(*arguments, **named):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            three.set()
        await three.wait()
        for _ in range(20):
            await asyncio.to_thread(lambda: None)
        under_way -= 1
        return await original(*arguments, **named)

    tiers.upsert = slow
    await ingest(documents(60), warm=False, index_parallelism=3)
    assert most == 3
