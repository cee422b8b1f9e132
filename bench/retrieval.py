"""Texts embedded per second; rows written, search time and recall_at_10 of Milvus Lite and of a Milvus server.

    python -m bench.retrieval [--arms lite server] [--references 10000] [--searches 200]

The rows are Wikipedia leads, cut to 512 characters. Their vectors are of the first 128 characters, the queries are the
128 characters after those, of leads drawn with a fixed seed. `recall_at_10` is the share of the exact ten nearest, by
numpy, that a search found.

Embedder and index are called in this process, without gRPC, by one caller, one call at a time. Arms are interleaved:
texts, blocks of rows and queries go to one arm after the other. A server seals and indexes segments in its own time;
here it is told to and waited for; recall_at_10 is taken before and after, times after. The server runs beside Lite on
the same cores; `--arms lite` measures Lite alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pymilvus import MilvusClient

from bench.machine import heading
from services.ingest.corpora import Article, articles
from services.retrieval.milvus_index import MilvusIndex
from services.retrieval.milvus_text import collection_of
from services.retrieval.ports import BankIdentity, Row, Vectors
from services.retrieval.sentence_embedder import SentenceEmbedder
from tests.helpers.milvus_server import milvus_server
from tests.helpers.references import references_of

TOP_K, PART, BLOCK = 10, 32, 1024  # hits of a search; texts or rows in one call; rows in one measured block
TEXT_CHARS, KEY_CHARS = 512, 128


@dataclass
class Arm:
    """One index with one bank, and what was measured on it."""

    place: str
    kind: str
    uri: str
    rows_per_s: list[float] = field(default_factory=list)  # one a block
    search_ms: list[float] = field(default_factory=list)  # one a query
    recall_at_10: list[float] = field(default_factory=list)  # before and after indexing

    def __post_init__(self) -> None:
        self.index = MilvusIndex(self.uri, timeout_s=30.0, index_type=self.kind)
        self.bank = f"bench-{self.kind.lower()}"


def embedding_rates(embedder: SentenceEmbedder, texts: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Texts per second, one value a repeat; the first repeat warms up."""
    arms = {
        f"{chars} characters, {at_once} a call": ([text[:chars] for text in texts], at_once)
        for chars, at_once in ((TEXT_CHARS, PART), (KEY_CHARS, PART), (KEY_CHARS, 1))
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(-1, repeats):
        for name, (of_arm, at_once) in arms.items():
            began = time.perf_counter()
            for first in range(0, len(of_arm), at_once):
                embedder.embed(of_arm[first : first + at_once])
            if repeat >= 0:
                rates[name].append(len(of_arm) / (time.perf_counter() - began))
    return rates


def rows_of(leads: Sequence[Article]) -> list[Row]:
    """One document of one reference for each lead."""
    return [
        Row(references_of(f"{number:05}", [lead.text[:TEXT_CHARS]])[0], "v1", num_references=1)
        for number, lead in enumerate(leads)
    ]


async def write(arms: Sequence[Arm], rows: Sequence[Row], vectors: Vectors) -> None:
    """Write all rows to all arms, block by block."""
    for start in range(0, len(rows), BLOCK):
        block = range(start, min(start + BLOCK, len(rows)))
        for arm in arms:
            began = time.perf_counter()
            for first in block[::PART]:
                part = slice(first, min(first + PART, block.stop))
                await arm.index.upsert(arm.bank, rows[part], vectors[part])
            arm.rows_per_s.append(len(block) / (time.perf_counter() - began))


async def search(arms: Sequence[Arm], queries: Vectors, exact: Sequence[set[str]]) -> None:
    """Ask every arm every query, one at a time, and keep the times of this round only."""
    for arm in arms:
        arm.search_ms.clear()
    found = [0] * len(arms)
    for query, wanted in zip(queries, exact, strict=True):
        for number, arm in enumerate(arms):
            began = time.perf_counter()
            [hits] = await arm.index.search(arm.bank, query[None], TOP_K, [])
            arm.search_ms.append((time.perf_counter() - began) * 1000)
            found[number] += len(wanted & {hit.reference.reference_id for hit in hits})
    for arm, hit in zip(arms, found, strict=True):
        arm.recall_at_10.append(hit / (TOP_K * len(queries)))


async def settle(arm: Arm, num_rows: int, timeout_s: float = 120.0) -> None:
    """Wait until a server answers from what it has sealed and indexed, which is seconds after it says that it has."""
    if arm.place == "Lite":
        return
    with contextlib.closing(MilvusClient(arm.uri)) as client:
        collection, deadline = collection_of(arm.bank), time.monotonic() + timeout_s
        await asyncio.to_thread(client.flush, collection, timeout=timeout_s)
        while True:
            segments = await asyncio.to_thread(client.list_loaded_segments, collection)
            # A FLAT segment is searched as it is and never has an index.
            ready = [s for s in segments if s.state_name == "Sealed" and (s.index_name or arm.kind == "FLAT")]
            if sum(segment.num_rows for segment in ready) >= num_rows:
                return
            assert time.monotonic() < deadline, f"{arm.kind}: not sealed and indexed after {timeout_s} s: {segments}"
            await asyncio.sleep(0.5)


@contextlib.contextmanager
def places(names: Sequence[str]) -> Iterator[list[Arm]]:
    """The arms that were asked for."""
    with contextlib.ExitStack() as stack:
        arms: list[Arm] = []
        if "lite" in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            arms.append(Arm("Lite", "FLAT", str(folder / "milvus.db")))
        if "server" in names:
            uri = stack.enter_context(milvus_server()).uri
            arms += [Arm("server", kind, uri) for kind in ("FLAT", "HNSW")]
        yield arms


async def run(arms: list[Arm], identity: BankIdentity, rows: list[Row], vectors: Vectors, queries: Vectors) -> None:
    """Write, search, wait for the indexes, search again."""
    for arm in arms:
        await arm.index.create(arm.bank, identity)
    ids = [row.reference.reference_id for row in rows]
    exact = [{ids[place] for place in np.argsort(-(vectors @ query))[:TOP_K]} for query in queries]
    await write(arms, rows, vectors)
    await search(arms, queries, exact)
    for arm in arms:
        await settle(arm, len(rows))
    await search(arms, queries, exact)
    for arm in arms:
        await arm.index.close()


def spread(values: Sequence[float]) -> str:
    """Median (least-greatest), n."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f}), {len(values)}"


def main() -> None:
    """Measure, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", choices=["lite", "server"], nargs="+", default=["lite", "server"])
    parser.add_argument("--references", type=int, default=10_000, help="rows of each bank")
    parser.add_argument("--searches", type=int, default=200, help="queries, the same for each bank")
    parser.add_argument("--repeats", type=int, default=10, help="passes of the embedder over each kind of text")
    options = parser.parse_args()
    leads = list(articles("package:wikipedia-leads"))[: options.references]
    embedder = SentenceEmbedder(threads=2)
    texts = [lead.text for lead in leads if len(lead.text) >= TEXT_CHARS][: 2 * PART]
    rates = embedding_rates(embedder, texts, options.repeats)
    keys = [lead.text[:KEY_CHARS] for lead in leads]
    vectors = np.concatenate([embedder.embed(keys[first : first + PART]) for first in range(0, len(keys), PART)])
    asked = [lead.text[KEY_CHARS : 2 * KEY_CHARS] for lead in leads if len(lead.text) >= 2 * KEY_CHARS]
    queries = embedder.embed(random.Random(0).sample(asked, options.searches))
    identity = BankIdentity(embedder.embedder_id, embedder.dimension)
    with places(options.arms) as arms:
        asyncio.run(run(arms, identity, rows_of(leads), vectors, queries))
    print(f"{heading()}\n")
    print("| embedded, 2 threads | texts/s: median (least-greatest), n |\n|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {spread(values)} |")
    print(f"\n{len(leads)} rows of {embedder.dimension} numbers, {PART} a call; one query a call, {TOP_K} hits\n")
    print("| index | rows/s: median (least-greatest), n | search p50 / p95 ms (least-greatest), n | recall_at_10 |")
    print("|---|---|---|---|")
    for arm in arms:
        times, (before, after) = arm.search_ms, arm.recall_at_10
        quantiles = statistics.quantiles(times, n=20)
        print(
            f"| {arm.place}, {arm.kind} | {spread(arm.rows_per_s)} "
            f"| {quantiles[9]:.1f} / {quantiles[18]:.1f} ({min(times):.1f}-{max(times):.1f}), {len(times)} "
            f"| {before:.3f} as written, {after:.3f} indexed |"
        )


if __name__ == "__main__":
    main()
