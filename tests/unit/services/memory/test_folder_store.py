"""What the conformance suite cannot see of a folder: order of syncs, leftovers, foreign files, errors of the disk."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from memory3.errors import BackendUnavailableError, StorageDeniedError, StorageFullError
from services.memory import folder_store
from services.memory.folder_store import FolderStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FolderStore]:
    store = FolderStore(tmp_path / "store", threads=2)
    await store.check()
    yield store
    await store.close()


@pytest.mark.parametrize("method", ["put_new", "replace"])
async def test_the_file_is_synced_before_it_is_named_and_the_folders_after(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    root = tmp_path / "store"
    target = root / "a" / "b" / "c"
    events: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        name = "file" if path.parent.name == ".incoming" else str(path.relative_to(root))
        events.append(f"{name} {'named' if target.exists() else 'unnamed'}")

    monkeypatch.setattr(folder_store.os, "fsync", recorded)
    await getattr(store, method)("a/b/c", b"x")
    assert events == ["file unnamed", "a/b named", "a named", ". named"]
    events.clear()
    if method == "put_new":
        assert not await store.put_new("a/b/c", b"x")
        assert events == ["a/b named", "a named", ". named"], "what another one made may not be durable yet"


async def test_leftovers_are_invisible_and_swept_at_the_next_start_but_not_what_is_being_written(
    store: FolderStore, tmp_path: Path
) -> None:
    incoming = tmp_path / "store" / ".incoming"
    incoming.mkdir()
    (incoming / "left").write_bytes(b"half")
    with (incoming / "busy").open("wb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        assert list(await store.list("", "", 10)) == []
        restarted = FolderStore(tmp_path / "store", threads=1)
        await restarted.check()
        assert [path.name for path in incoming.iterdir()] == ["busy"]
        await restarted.close()


async def test_a_put_whose_file_was_swept_writes_it_again(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, attempts = os.link, []

    def swept(source: Path, target: Path) -> None:
        attempts.append(source)
        if len(attempts) == 1:
            source.unlink()
        link(source, target)

    monkeypatch.setattr(folder_store.os, "link", swept)
    assert await store.put_new("a/b", b"x")
    assert await store.get("a/b", 10) == b"x"
    assert len(attempts) == 2


async def test_nothing_is_left_behind_by_puts_and_deletes(store: FolderStore, tmp_path: Path) -> None:
    await store.put_new("a/b/c", b"x")
    await store.put_new("a/b/c", b"y")
    await store.replace("a/b/c", b"z")
    await store.delete(["a/b/c"])
    assert _below(tmp_path) == ["store", "store/.incoming"]


def _below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_hidden_files_are_not_listed(store: FolderStore, tmp_path: Path) -> None:
    await store.put_new("a/b", b"x")
    (tmp_path / "store" / "a" / ".DS_Store").write_bytes(b"")
    assert [item.key for item in await store.list("", "", 10)] == ["a/b"]


async def test_keys_whose_order_folders_do_not_have(store: FolderStore) -> None:
    keys = ["a", "a-b/x", "a.b", "a/x", "a0"]
    for key in keys[1:]:
        await store.put_new(key, b"")
    found = [item.key for item in await store.list("", "", 10)]
    assert found == sorted(keys[1:])
    assert [item.key for item in await store.list("", "a.b", 10)] == ["a/x", "a0"]


FILE_LIMIT = 32 * 1024 * 1024
"""Well above what a test run prints: where its output goes to a file, that file is under the limit too."""


@pytest.fixture
def small_files_only() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
async def test_no_room_is_storage_full_and_leaves_nothing(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(StorageFullError):
        await store.put_new("a/b", bytes(FILE_LIMIT + 1))
    assert await store.get("a/b", 10) is None
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []
    assert await store.put_new("a/b", bytes(5_000))


@pytest.mark.parametrize(
    ("number", "error"),
    [(13, StorageDeniedError), (30, StorageDeniedError), (28, StorageFullError), (5, BackendUnavailableError)],
)
async def test_errors_of_the_disk_are_translated(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number), "the file")

    monkeypatch.setattr(folder_store.os, "fsync", fail)
    with pytest.raises(error, match="the file"):
        await store.put_new("a/b", b"x")


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = FolderStore(tmp_path / "store", threads=1)
    with pytest.raises(BackendUnavailableError):
        await store.check()
    with pytest.raises(BackendUnavailableError):
        await store.put_new("a", b"")
    (tmp_path / "store").unlink()
    await store.check()
    await store.close()
