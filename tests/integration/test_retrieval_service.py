"""The retrieval service over real gRPC: on Milvus Lite, and as a process beside a Milvus that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from memory3.api.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from memory3.channel import translated
from memory3.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    MalformedRequestError,
    MessageTooLargeError,
    ModelMismatchError,
    OverloadedError,
    UnknownBankError,
)
from memory3.health import is_serving
from memory3.retrieval import RetrievalClient
from services.common.server import running_server
from services.retrieval.__main__ import mounts
from services.retrieval.batcher import Batcher
from services.retrieval.config import RetrievalSettings
from services.retrieval.core import RetrievalCore
from services.retrieval.hash_embedder import HashEmbedder
from services.retrieval.milvus_index import MilvusIndex
from services.retrieval.ports import Embedder, Vectors
from tests.helpers.processes import ServiceProcess, service_process
from tests.helpers.references import reference_id_of, references_of


class GatedEmbedder(HashEmbedder):
    """Hashes words once its gate is open."""

    def __init__(self) -> None:
        super().__init__(64)
        self.gate = threading.Event()
        self.gate.set()

    def embed(self, texts: Sequence[str]) -> Vectors:
        assert self.gate.wait(20)
        return super().embed(texts)


@contextlib.asynccontextmanager
async def _service(path: Path, embedder: Embedder) -> AsyncIterator[RetrievalClient]:
    settings = RetrievalSettings(port=0, drain_seconds=0.2)
    index = MilvusIndex(str(path))
    batcher = Batcher(embedder, max_batch_texts=32, max_queue_texts=256)
    async with running_server(settings, mounts(RetrievalCore(index, batcher)), [index.check]) as running:
        async with RetrievalClient(running.address, retry=False) as client:
            yield client
    await batcher.close()
    await index.close()


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
async def client(tmp_path: Path, embedder: GatedEmbedder) -> AsyncIterator[RetrievalClient]:
    async with _service(tmp_path / "milvus.db", embedder) as made:
        yield made
        embedder.gate.set()


async def test_a_document_lives_and_dies(client: RetrievalClient) -> None:
    document_id = 'notes "2024"\\draft.md'
    texts = ["the red fox jumps", "the blue whale sings", "shared words"]
    first = await client.upsert("bank-1", document_id, "v1", references_of(document_id, texts))
    assert (first.num_references, first.num_removed) == (3, 0)
    await client.upsert("bank-1", "other", "v1", references_of("other", ["shared words"]))

    found = await client.retrieve("bank-1", ["red fox jumps", "whale sings"], 2)
    assert [hits[0].reference.text for hits in found.results] == texts[:2]
    assert found.results[0][0].reference == references_of(document_id, texts)[0]
    assert found.timing.total_ns >= found.timing.embed_ns + found.timing.search_ns > 0
    only = await client.retrieve("bank-1", ["words"], 10, [document_id])
    assert {hit.reference.document_id for hit in only.results[0]} == {document_id}

    described = await client.describe_bank("bank-1")
    assert (described.num_references, described.num_documents) == (4, 2)
    second = await client.upsert("bank-1", document_id, "v2", references_of(document_id, ["the red fox sleeps"]))
    assert second.num_removed == 3
    assert set(second.orphaned_reference_ids) == {reference_id_of(text) for text in texts[:2]}
    assert [r.text for r in await client.get_references("bank-1", [reference_id_of(texts[0])])] == []

    gone = await client.delete("bank-1", [document_id, "never there"])
    assert (gone.num_documents, gone.num_references) == (1, 1)
    assert gone.orphaned_reference_ids == [reference_id_of("the red fox sleeps")]
    assert [document.document_id async for document in client.list_documents("bank-1")] == ["other"]
    await client.delete("bank-1", whole_bank=True)
    assert await client.list_banks() == []


async def test_a_document_in_parts(client: RetrievalClient) -> None:
    parts = [references_of("d", [f"word{n} of part {p}" for n in range(40)], first=40 * p) for p in range(3)]
    for number, part in enumerate(parts):
        await client.upsert("bank", "d", "v1", part, last_part=number == 2)
    assert [d.num_references async for d in client.list_documents("bank")] == [120]
    assert (await client.describe_bank("bank")).num_references == 120


async def test_documents_are_listed_page_by_page(client: RetrievalClient) -> None:
    names = [f"doc {number:02} \"'" for number in range(25)]
    await asyncio.gather(*(client.upsert("bank", name, "v1", references_of(name, ["text"])) for name in names))
    assert [d.document_id async for d in client.list_documents("bank", page_size=10)] == names


async def test_embed_answers_in_order(client: RetrievalClient) -> None:
    result = await client.embed(["one", "two", "one"])
    assert result.vectors[0] == result.vectors[2] != result.vectors[1]
    assert len(result.vectors[0]) == 4 * result.dimension


async def test_errors_arrive_as_their_classes(client: RetrievalClient) -> None:
    for call in (
        client.retrieve("nobody", ["x"], 1),
        client.delete("nobody", ["x"]),
        client.describe_bank("nobody"),
        client.get_references("nobody", ["0" * 32]),
        anext(client.list_documents("nobody")),
    ):
        with pytest.raises(UnknownBankError, match="nobody"):
            await call
    with pytest.raises(MalformedRequestError, match="queries: 257 given, 1 to 256 allowed"):
        await client.retrieve("bank", ["x"] * 257, 1)
    with pytest.raises(MalformedRequestError, match="is not a bank's name"):
        await client.upsert('x" or 1 == 1', "d", "v1", references_of("d", ["x"]))


async def test_a_message_over_four_mebibytes_is_refused(client: RetrievalClient) -> None:
    with pytest.raises(MessageTooLargeError):
        await client.embed(["x" * 5_000_000])
    assert (await client.embed(["x"])).dimension == 64


async def test_an_answer_over_four_mebibytes_is_refused_with_a_remedy(client: RetrievalClient) -> None:
    texts = [f"word {number} " * 2_000 for number in range(100)]
    for first in range(0, 100, 25):
        await client.upsert("bank", f"d{first}", "v1", references_of(f"d{first}", texts[first : first + 25]))
    with pytest.raises(MessageTooLargeError, match="smaller top_k"):
        await client.retrieve("bank", ["word 1", "word 2", "word 3"], 100)
    assert len((await client.retrieve("bank", ["word"], 50)).results[0]) == 50


async def test_another_embedder_is_a_mismatch(tmp_path: Path) -> None:
    async with _service(tmp_path / "milvus.db", HashEmbedder(64)) as client:
        await client.upsert("bank", "d", "v1", references_of("d", ["x"]))
    async with _service(tmp_path / "milvus.db", HashEmbedder(32)) as client:
        with pytest.raises(ModelMismatchError, match="into a new bank"):
            await client.retrieve("bank", ["x"], 1)
        assert [bank.embedder_id for bank in await client.list_banks()] == ["hash-1-64"]


async def test_overload_is_refused_with_a_hint_and_passes(client: RetrievalClient, embedder: GatedEmbedder) -> None:
    embedder.gate.clear()
    # The first batch is with the embedder, 256 texts wait: there is no room for one more.
    calls = [asyncio.create_task(client.embed(["x"] * 32))]
    refused: OverloadedError | None = None
    async with asyncio.timeout(10):
        while refused is None:
            calls.append(asyncio.create_task(client.embed(["x"] * 128)))
            done, _ = await asyncio.wait(calls, timeout=0.05)
            errors = [error for error in (task.exception() for task in done) if error]
            refused = next((error for error in errors if isinstance(error, OverloadedError)), None)
            assert len(errors) == (refused is not None)
    assert refused.retry_after_ms
    embedder.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert len((await client.embed(["x"] * 256)).vectors) == 256


async def test_a_deadline_ends_the_wait_and_frees_the_queue(client: RetrievalClient, embedder: GatedEmbedder) -> None:
    await client.upsert("bank", "d", "v1", references_of("d", ["x"]))
    embedder.gate.clear()
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        await client.retrieve("bank", ["x"], 1, timeout=0.2)
    assert time.monotonic() - started < 5
    embedder.gate.set()
    assert (await client.retrieve("bank", ["x"], 1)).results[0][0].reference.text == "x"


async def test_wire_defaults_are_refused_by_name(client: RetrievalClient) -> None:
    stub = retrieval_pb2_grpc.RetrievalServiceStub(client.channel)
    with pytest.raises(MalformedRequestError, match="is not a bank's name"):
        async with translated(client.target):
            await stub.Retrieve(retrieval_pb2.RetrieveRequest())


class LiteServer:
    """Milvus Lite as a server of its own, to be killed and started on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "milvus_lite.cmdline", "server", "--data-dir", str(self._folder / "data"),
                 "--host", "127.0.0.1", "--port", str(self._port)],
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[LiteServer]:
    server = LiteServer(tmp_path)
    yield server
    server.kill()


async def test_the_service_outlives_its_milvus(milvus: LiteServer, tmp_path: Path) -> None:
    """Started before Milvus, it is not ready; then it is; Milvus killed, calls say so; Milvus back, they work again."""
    env = {
        "MEMORY3_RETRIEVAL_PORT": "0",
        "MEMORY3_RETRIEVAL_MILVUS_URI": milvus.uri.replace("http://", "http://root:secret@"),
        "MEMORY3_RETRIEVAL_MILVUS_TIMEOUT_SECONDS": "1",
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
    }
    service = ServiceProcess("services.retrieval", env, tmp_path / "service.log")
    try:
        service.start(wait_serving=False)
        async with RetrievalClient(service.address, retry=False) as client:
            assert not await is_serving(client)
            with pytest.raises(BackendUnavailableError, match=milvus.uri) as raised:
                await client.list_banks()
            assert raised.value.retriable
            milvus.start()
            await _until_serving(client, serving=True)
            await client.upsert("bank", "d", "v1", references_of("d", ["kept words"]))
            milvus.kill()
            with pytest.raises(BackendUnavailableError):
                await client.retrieve("bank", ["words"], 1)
            await _until_serving(client, serving=False)
            milvus.start()
            await _until_serving(client, serving=True)
            found = await client.retrieve("bank", ["words"], 1)
            assert found.results[0][0].reference.text == "kept words"
        assert "secret" not in service.log
        assert service.stop() == 0
    finally:
        service.stop()


async def _until_serving(client: RetrievalClient, *, serving: bool) -> None:
    async with asyncio.timeout(30):
        while await is_serving(client) != serving:
            await asyncio.sleep(0.05)


async def test_a_killed_service_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    env = {
        "MEMORY3_RETRIEVAL_PORT": "0",
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(tmp_path / "milvus.db"),
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
    }
    names = [f"d{number:03}" for number in range(80)]
    acknowledged: set[str] = set()

    async def write(client: RetrievalClient, name: str) -> None:
        await client.upsert("bank", name, "v1", references_of(name, [f"text of {name}", "more"]))

    with service_process("services.retrieval", env, tmp_path / "service.log") as service:
        async with RetrievalClient(service.address, retry=False) as client:
            few = asyncio.Semaphore(4)

            async def write_until_killed(name: str) -> None:
                async with few:
                    await write(client, name)
                acknowledged.add(name)
                if len(acknowledged) == 40:
                    service.kill()

            results = await asyncio.gather(*map(write_until_killed, names), return_exceptions=True)
            assert any(isinstance(result, BackendUnavailableError) for result in results)
        service.start()
        async with RetrievalClient(service.address) as client:
            listed = {d.document_id: d.num_references async for d in client.list_documents("bank")}
            assert acknowledged <= listed.keys()
            assert set(listed.values()) == {2}
            # Half-written documents are mended by writing them again.
            await asyncio.gather(*(write(client, name) for name in names))
            assert (await client.describe_bank("bank")).num_references == 160
