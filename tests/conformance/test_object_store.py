"""Every ObjectStore must pass this: a folder, and a real S3 server with and without conditional puts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from memory3.errors import BackendUnavailableError, StorageDeniedError
from services.memory.config import S3Location, parse_store_uri
from services.memory.folder_store import FolderStore
from services.memory.ports import ObjectStore, StoredObject
from services.memory.s3_store import S3ObjectStore
from tests.helpers.s3_server import (
    ACCESS_KEY,
    READ_ONLY_ACCESS_KEY,
    READ_ONLY_SECRET_KEY,
    SECRET_KEY,
    S3Server,
    s3_server,
)

LIMIT = 1024 * 1024
_buckets = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


def s3_store(server: S3Server, bucket: str, access: str = ACCESS_KEY, secret: str = SECRET_KEY) -> S3ObjectStore:
    location = parse_store_uri(server.uri(bucket))
    assert isinstance(location, S3Location)
    return S3ObjectStore(location, access, secret, timeout_s=10.0)


class ObjectStoreTests:
    """The suite; a subclass gives `store`, empty."""

    async def test_what_was_put_is_read(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 400
        assert await store.put_new("a/b.m3em", data)
        assert await store.get("a/b.m3em", LIMIT) == data
        assert await store.stat("a/b.m3em") == len(data)

    async def test_absent_objects_are_none(self, store: ObjectStore) -> None:
        await store.put_new("a/b", b"x")
        for key in ("nothing", "a", "a/c", "a/b/c", "a/bb"):
            assert await store.get(key, LIMIT) is None, key
            assert await store.stat(key) is None, key

    async def test_an_empty_object_is_not_absent(self, store: ObjectStore) -> None:
        assert await store.put_new("a", b"")
        assert await store.get("a", LIMIT) == b""
        assert await store.stat("a") == 0

    async def test_put_new_leaves_what_is_there(self, store: ObjectStore) -> None:
        assert await store.put_new("a", b"first")
        assert not await store.put_new("a", b"second")
        assert not await store.put_new("a", b"first")
        assert await store.get("a", LIMIT) == b"first"

    async def test_replace_takes_the_place_of_what_is_there(self, store: ObjectStore) -> None:
        await store.put_new("a", b"first")
        await store.replace("a", b"the second")
        assert await store.get("a", LIMIT) == b"the second"
        await store.replace("b", b"new")
        assert await store.get("b", LIMIT) == b"new"

    async def test_get_reads_no_more_than_the_limit_and_one_byte(self, store: ObjectStore) -> None:
        await store.put_new("a", b"0123456789")
        assert await store.get("a", 10) == b"0123456789"
        assert await store.get("a", 9) == b"0123456789"
        assert await store.get("a", 4) == b"01234"

    async def test_delete_removes_and_absent_ones_are_no_error(self, store: ObjectStore) -> None:
        for number in range(120):
            await store.put_new(f"a/{number}", b"x")
        await store.delete([f"a/{number}" for number in range(119)] + ["a/none", "none/none"])
        await store.delete([])
        assert [item.key for item in await store.list("", "", 1000)] == ["a/119"]
        assert await store.get("a/0", LIMIT) is None
        assert await store.put_new("a/0", b"y")

    async def test_list_pages_in_key_order(self, store: ObjectStore) -> None:
        keys = [f"banks/{bank}/{n:02x}/{n:032x}.m3em" for bank in ("b", "b2", "c") for n in range(0, 250, 7)]
        for position, key in enumerate(keys):
            await store.put_new(key, b"x" * position)
        expected = sorted(
            StoredObject(key, position) for position, key in enumerate(keys) if key.startswith("banks/b/")
        )
        for limit in (1, 10, len(expected), 1000):
            found: list[StoredObject] = []
            while True:
                page = await store.list("banks/b/", found[-1].key if found else "", limit)
                assert len(page) <= limit
                found += page
                if len(page) < limit:
                    break
            assert found == expected

    async def test_list_of_nothing_is_empty(self, store: ObjectStore) -> None:
        assert list(await store.list("banks/none/", "", 10)) == []
        await store.put_new("banks/b/x", b"")
        assert list(await store.list("banks/b/x/", "", 10)) == []
        assert list(await store.list("banks/b/", "banks/b/x", 10)) == []
        assert list(await store.list("banks/b/", "banks/c", 10)) == []
        assert [item.key for item in await store.list("banks/b/", "banks/a", 10)] == ["banks/b/x"]

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", ".incoming/x", "a\\b", "a\0", "ä"]
    )
    async def test_keys_of_another_form_are_refused(self, store: ObjectStore, key: str) -> None:
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: store.put_new(key, b""),
            lambda: store.replace(key, b""),
            lambda: store.get(key, 1),
            lambda: store.stat(key),
            lambda: store.delete([key]),
        ]
        for attempt in attempts:
            with pytest.raises(ValueError, match="object key"):
                await attempt()

    async def test_of_eight_racing_creators_exactly_one_wins(self, store: ObjectStore) -> None:
        for round_number in range(3):
            key, data = f"race/{round_number}", [bytes([number]) * 50_000 for number in range(8)]
            won = await asyncio.gather(*(store.put_new(key, item) for item in data))
            assert won.count(True) == 1
            assert await store.get(key, LIMIT) == data[won.index(True)]

    async def test_readers_see_an_object_whole_or_not_at_all(self, store: ObjectStore) -> None:
        old, new = b"o" * 300_000, b"n" * 200_000
        seen: set[bytes | None] = set()

        async def read(key: str) -> None:
            for _ in range(10):
                seen.add(await store.get(key, LIMIT))

        await asyncio.gather(store.put_new("a", old), *(read("a") for _ in range(4)))
        await asyncio.gather(store.replace("a", new), *(read("a") for _ in range(4)))
        assert seen <= {None, old, new}

    async def test_check_passes_on_a_store_in_use(self, store: ObjectStore) -> None:
        await store.put_new("a", b"x")
        await store.check()
        assert await store.get("a", LIMIT) == b"x"


class TestFolder(ObjectStoreTests):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ObjectStore]:
        store = FolderStore(tmp_path / "not" / "made" / "yet", threads=4)
        await store.check()
        yield store
        await store.close()


@pytest.mark.s3
class TestS3(ObjectStoreTests):
    @pytest.fixture
    async def store(self, server: S3Server) -> AsyncIterator[ObjectStore]:
        store = s3_store(server, f"bucket-{next(_buckets)}")
        await store.check()
        yield store
        await store.close()


@pytest.mark.s3
class TestS3WithoutConditionalPuts(ObjectStoreTests):
    """As with a server that ignores If-None-Match and overwrites. What it cannot promise is left out, and said so."""

    @pytest.fixture
    async def store(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
        async def overwrites(*_: object) -> bool:
            return False

        monkeypatch.setattr(S3ObjectStore, "_try_create", overwrites)
        store = s3_store(server, f"bucket-{next(_buckets)}")
        await store.check()
        yield store
        await store.close()

    async def test_of_eight_racing_creators_exactly_one_wins(self, store: ObjectStore) -> None:
        """The last writer stays; whoever is overwritten before it has read back is told. All see one of them, whole."""
        data = [bytes([number]) * 50_000 for number in range(8)]
        won = await asyncio.gather(*(store.put_new("race", item) for item in data))
        final = await store.get("race", LIMIT)
        assert final in data
        assert won[data.index(final)]
        assert not await store.put_new("race", b"late")
        assert await store.get("race", LIMIT) == final


@pytest.mark.s3
async def test_the_server_is_found_to_honour_conditional_puts(server: S3Server) -> None:
    store = s3_store(server, f"bucket-{next(_buckets)}")
    await store.check()
    await store.put_new("a", b"x")
    assert store._honours_create is True
    assert [item.key for item in await store.list("", "", 10)] == ["a"], "the trial object is left behind"


@pytest.mark.s3
async def test_wrong_and_read_only_keys_are_denied_without_being_named(server: S3Server) -> None:
    writer = s3_store(server, "denied")
    await writer.check()
    await writer.put_new("a", b"x")
    reader = s3_store(server, "denied", READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY)
    assert await reader.get("a", LIMIT) == b"x"
    stranger = s3_store(server, "denied", ACCESS_KEY, "a-wrong-secret")
    for attempt in (
        lambda: reader.put_new("b", b""),
        lambda: reader.delete(["a"]),
        lambda: stranger.get("a", LIMIT),
        stranger.check,
    ):
        with pytest.raises(StorageDeniedError) as caught:
            await attempt()
        assert "secret" not in str(caught.value)
    assert await writer.get("a", LIMIT) == b"x"


@pytest.mark.s3
async def test_a_bucket_is_made_only_if_it_may_be(server: S3Server) -> None:
    location = parse_store_uri(server.uri("not-made") + "&create=false")
    assert isinstance(location, S3Location)
    store = S3ObjectStore(location, ACCESS_KEY, SECRET_KEY, timeout_s=10.0)
    with pytest.raises(BackendUnavailableError, match="does not exist"):
        await store.check()
    assert not server.admin().bucket_exists(bucket_name="not-made")
    await s3_store(server, "not-made").check()
    await store.check()
