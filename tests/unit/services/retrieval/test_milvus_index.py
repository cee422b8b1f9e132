"""What MilvusIndex asks of its client, where a real Milvus shows a mistake only now and then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.retrieval import milvus_connection
from services.retrieval.milvus_index import MilvusIndex


class RecordingClient:
    """Notes the calls and answers as an empty Milvus would."""

    def __init__(self, *_: object, **__: object) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def describe_collection(self, *_: object, **__: object) -> dict[str, Any]:
        return {"properties": {}}

    def load_collection(self, *_: object, **__: object) -> None:
        pass

    def delete(self, *_: object, **options: Any) -> None:
        self.calls.append(("delete", options))

    def query(self, *_: object, **options: Any) -> list[dict[str, int]]:
        self.calls.append(("query", options))
        return [{"count(*)": 0}]

    def close(self) -> None:
        pass


async def test_a_delete_on_a_server_returns_when_a_strong_read_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of level Session does not wait for it: the answer to a delete has no timestamp."""
    client = RecordingClient()
    monkeypatch.setattr(milvus_connection, "MilvusClient", lambda *_, **__: client)
    index = MilvusIndex("http://milvus:19530")
    await index.delete("bank", ["a", "b"])
    assert [name for name, _ in client.calls] == ["delete", "query"]
    read = client.calls[1][1]
    assert read["filter"] == client.calls[0][1]["filter"]
    assert "consistency_level" not in read  # the collection's own, which is Strong
    await index.close()


@pytest.mark.parametrize(("uri", "pings"), [("http://milvus:19530", True), ("index.db", False)])
async def test_the_server_of_lite_is_not_pinged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, *, pings: bool
) -> None:
    """It breaks connections off for that, some forty seconds after the last call."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        milvus_connection, "MilvusClient", lambda *_, **options: given.update(options) or RecordingClient()
    )
    index = MilvusIndex(uri if pings else str(tmp_path / uri))
    await index.delete("bank", ["a"])
    assert (given.get("grpc_options", {}).get("grpc.keepalive_time_ms", 10_000) < 3_600_000) is pings
    await index.close()
