"""The retrieval service on Milvus Lite, and its disk: full, with room again, and a kill -9 after that."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory3.errors import StorageFullError
from memory3.retrieval import RetrievalClient
from tests.helpers.processes import service_process
from tests.helpers.references import references_of
from tests.helpers.small_disk import remount, small_disk

BANK = "notes"
REFERENCES = 20


async def upsert(client: RetrievalClient, document_id: str) -> None:
    texts = [f"paragraph {number} of {document_id} " + "and so on " * 30 for number in range(REFERENCES)]
    await client.upsert(BANK, document_id, "v1", references_of(document_id, texts), timeout=30)


async def listed(client: RetrievalClient) -> dict[str, int]:
    return {document.document_id: document.num_references async for document in client.list_documents(BANK)}


@pytest.mark.parametrize("size", ["1100k", "2m"])
async def test_a_full_disk_refuses_upserts_and_loses_nothing_it_acknowledged(tmp_path: Path, size: str) -> None:
    disk = tmp_path / "disk"
    env = {
        "MEMORY3_RETRIEVAL_PORT": "0",
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(disk / "index.db"),
    }
    acknowledged: set[str] = set()

    async def fill(client: RetrievalClient, part: str) -> None:
        for number in range(500):
            await upsert(client, f"{part}-{number}")
            acknowledged.add(f"{part}-{number}")

    with small_disk(disk, size), service_process("services.retrieval", env, tmp_path / "retrieval.log") as service:
        async with RetrievalClient(service.address, retry=False) as client:
            for part in ("first", "second", "third"):
                with pytest.raises(StorageFullError, match="no space left on the disk"):
                    await fill(client, part)
            assert len(acknowledged) > 20
            assert (await client.retrieve(BANK, ["paragraph 3 of first-1"], 2)).results[0]
            remount(disk, "size=60m")
            for number in range(40):  # more than are flushed at once
                await upsert(client, f"later-{number}")
                acknowledged.add(f"later-{number}")
            assert acknowledged <= set(await listed(client))
        service.kill()
        service.start()
        async with RetrievalClient(service.address) as client:
            found = await listed(client)
            assert {name: found.get(name) for name in acknowledged} == dict.fromkeys(acknowledged, REFERENCES)
            assert (await client.describe_bank(BANK)).num_references >= REFERENCES * len(acknowledged)
