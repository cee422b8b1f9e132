"""The batcher: shared batches, bounded queues, queries first, cancelled callers leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory3.errors import OverloadedError
from services.retrieval.batcher import Batcher
from services.retrieval.ports import Vectors


class GatedEmbedder:
    """A text's vector is its length; batches wait at the gate while it is closed."""

    embedder_id = "gated"
    dimension = 1

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        assert self.gate.wait(10)
        if self.failing:
            raise RuntimeError("out of memory")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
async def batcher(embedder: GatedEmbedder) -> AsyncIterator[Batcher]:
    made = Batcher(embedder, max_batch_texts=4, max_queue_texts=8)
    yield made
    embedder.gate.set()
    await made.close()


async def _busy(batcher: Batcher, embedder: GatedEmbedder) -> asyncio.Task[object]:
    """Close the gate and occupy the embedder with one text."""
    embedder.gate.clear()
    task = asyncio.create_task(batcher.embed(["busy"]))
    async with asyncio.timeout(5):
        while not embedder.batches:
            await asyncio.sleep(0)
    return task


async def test_concurrent_calls_share_batches(batcher: Batcher, embedder: GatedEmbedder) -> None:
    busy = await _busy(batcher, embedder)
    calls = [asyncio.create_task(batcher.embed(["x" * length])) for length in range(1, 7)]
    await asyncio.sleep(0)
    embedder.gate.set()
    results = await asyncio.gather(*calls)
    await busy
    assert [len(batch) for batch in embedder.batches] == [1, 4, 2]
    assert [result.vectors.tolist() for result in results] == [[[length]] for length in range(1, 7)]


async def test_times_say_where_a_call_waited(batcher: Batcher, embedder: GatedEmbedder) -> None:
    busy = await _busy(batcher, embedder)
    call = asyncio.create_task(batcher.embed(["a"]))
    await asyncio.sleep(0.02)
    embedder.gate.set()
    result = await call
    await busy
    assert result.queue_ns >= 10_000_000
    assert 0 < result.embed_ns < 1_000_000_000


async def test_a_call_larger_than_a_batch_keeps_its_order(batcher: Batcher, embedder: GatedEmbedder) -> None:
    result = await batcher.embed(["a", "bb", "ccc", "dddd", "eeeee", "ffffff"])
    assert result.vectors[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert [len(batch) for batch in embedder.batches] == [4, 2]


async def test_a_full_queue_refuses_with_a_hint_and_takes_texts_again(
    batcher: Batcher, embedder: GatedEmbedder
) -> None:
    busy = await _busy(batcher, embedder)
    waiting = asyncio.create_task(batcher.embed(["x"] * 7))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=r"7 texts wait .* 2 more .* limit of 8") as raised:
        await batcher.embed(["y", "z"])
    assert raised.value.retry_after_ms is not None
    fits = asyncio.create_task(batcher.embed(["y"]))
    await asyncio.sleep(0)
    embedder.gate.set()
    await asyncio.gather(busy, waiting, fits)
    assert len((await batcher.embed(["x"] * 8)).vectors) == 8


async def test_queries_go_before_bulk_and_have_room_of_their_own(batcher: Batcher, embedder: GatedEmbedder) -> None:
    busy = await _busy(batcher, embedder)
    bulk = asyncio.create_task(batcher.embed(["bulk"] * 8, bulk=True))
    await asyncio.sleep(0)
    query = asyncio.create_task(batcher.embed(["query"] * 3))
    await asyncio.sleep(0)
    embedder.gate.set()
    await asyncio.gather(busy, bulk, query)
    assert embedder.batches[1] == ["query", "query", "query", "bulk"]


async def test_a_cancelled_call_leaves_the_queue(batcher: Batcher, embedder: GatedEmbedder) -> None:
    busy = await _busy(batcher, embedder)
    gone = asyncio.create_task(batcher.embed(["gone"] * 8))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    stays = asyncio.create_task(batcher.embed(["stays"] * 8))
    await asyncio.sleep(0)
    embedder.gate.set()
    await asyncio.gather(busy, stays)
    assert "gone" not in [text for batch in embedder.batches for text in batch]


async def test_a_call_cancelled_within_a_batch_disturbs_nobody(batcher: Batcher, embedder: GatedEmbedder) -> None:
    embedder.gate.clear()
    gone = asyncio.create_task(batcher.embed(["gone"] * 6))
    async with asyncio.timeout(5):
        while not embedder.batches:
            await asyncio.sleep(0)
    stays = asyncio.create_task(batcher.embed(["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    embedder.gate.set()
    assert (await stays).vectors.tolist() == [[5]]
    assert embedder.batches == [["gone"] * 4, ["stays"]]


async def test_an_error_of_the_embedder_reaches_the_callers_and_the_next_call_works(
    batcher: Batcher, embedder: GatedEmbedder
) -> None:
    embedder.failing = True
    for count in (1, 6):
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.embed(["x"] * count)
    embedder.failing = False
    assert len((await batcher.embed(["x"] * 8)).vectors) == 8


async def test_close_cancels_who_still_waits(embedder: GatedEmbedder) -> None:
    batcher = Batcher(embedder, max_batch_texts=4, max_queue_texts=8)
    busy = await _busy(batcher, embedder)
    waiting = asyncio.create_task(batcher.embed(["x"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    done, _ = await asyncio.wait([busy, waiting], timeout=5)
    assert done == {busy, waiting}
    assert busy.cancelled()
    assert waiting.cancelled()
    embedder.gate.set()
    await closing


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12))
def test_every_text_gets_its_own_vector(calls: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        embedder = GatedEmbedder()
        batcher = Batcher(embedder, max_batch_texts=4, max_queue_texts=1_000)
        texts = [["x" * (10 * call + place) for place in range(count)] for call, (count, _) in enumerate(calls)]
        results = await asyncio.gather(
            *(batcher.embed(some, bulk=bulk) for some, (_, bulk) in zip(texts, calls, strict=True))
        )
        for some, result in zip(texts, results, strict=True):
            assert result.vectors[:, 0].tolist() == [len(text) for text in some]
        assert max(map(len, embedder.batches)) <= 4
        await batcher.close()

    asyncio.run(run())
