"""ObjectStore on a folder: the embedded default. Durable and atomic; knows no records.

A put writes a file below `.incoming/`, syncs it, links it to its place (which fails if there is one: create-only)
and syncs the folders. So an object is either whole or absent, whenever the process or the machine stops. What a killed
process leaves below `.incoming/` is never read, and removed by the next `check`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from memory3.errors import BackendUnavailableError, Memory3Error, StorageDeniedError, StorageFullError
from services.memory.ports import StoredObject, check_key

T = TypeVar("T")

_INCOMING = ".incoming"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_MAX_ATTEMPTS = 8
"""A put meets a delete that removes its emptied folder, or a sweep, only by a rare race; eight in a row is a bug."""


class FolderStore:
    """Objects as files below `folder`, which is made if it is absent. Processes may share it."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._root = folder
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="folder-store")
        self._swept = False

    async def put_new(self, key: str, data: bytes) -> bool:
        return await self._run(self._put_new, key, data)

    async def replace(self, key: str, data: bytes) -> None:
        await self._run(self._replace, key, data)

    async def get(self, key: str, limit_bytes: int) -> bytes | None:
        return await self._run(self._get, key, limit_bytes)

    async def stat(self, key: str) -> int | None:
        return await self._run(self._stat, key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._run(self._delete, keys)

    async def list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        return await self._run(self._list, prefix, start_after, limit)

    async def check(self) -> None:
        await self._run(self._check)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> Memory3Error:
        where, what = error.filename or self._root, error.strerror or str(error)
        if error.errno in _FULL:
            return StorageFullError(f"{where}: {what}; free space below {self._root}, or delete banks")
        if error.errno in _DENIED:
            return StorageDeniedError(
                f"{where}: {what}; give the service's user the right to read and write {self._root}"
            )
        return BackendUnavailableError(f"{where}: {what}; see to the disk or mount below {self._root}")

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _put_new(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        for _ in range(_MAX_ATTEMPTS):
            if not target.exists():
                with contextlib.suppress(FileNotFoundError), self._incoming(data) as temporary:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(temporary, target)
                        created = True
                    except FileExistsError:
                        created = False
                    self._sync_folders(target.parent)
                    return created
            else:
                # Whoever made it may not have synced its folder yet, and our caller will call it durable.
                with contextlib.suppress(FileNotFoundError):
                    self._sync_folders(target.parent)
                    return False
        raise BackendUnavailableError(
            f"{target}: its folder vanishes during every attempt to write; is it being deleted?"
        )

    def _replace(self, key: str, data: bytes) -> None:
        target = self._path(key)
        for _ in range(_MAX_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError), self._incoming(data) as temporary:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
                self._sync_folders(target.parent)
                return
        raise BackendUnavailableError(
            f"{target}: its folder vanishes during every attempt to write; is it being deleted?"
        )

    @contextlib.contextmanager
    def _incoming(self, data: bytes) -> Iterator[Path]:
        """A synced file with these bytes, locked against the sweep of another process; gone after the block."""
        folder = self._root / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / secrets.token_hex(16)
        try:
            with path.open("xb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
                yield path
        finally:
            path.unlink(missing_ok=True)

    def _sync_folders(self, folder: Path) -> None:
        """Make the entries from the root down to `folder` durable."""
        while True:
            _sync(folder)
            if folder == self._root:
                return
            folder = folder.parent

    def _get(self, key: str, limit_bytes: int) -> bytes | None:
        try:
            with self._path(key).open("rb") as file:
                return file.read(limit_bytes + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _stat(self, key: str) -> int | None:
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _delete(self, keys: Sequence[str]) -> None:
        changed: set[Path] = set()
        for path in [self._path(key) for key in keys]:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            parent = path.parent
            with contextlib.suppress(OSError):  # not empty, or gone already
                while parent != self._root:
                    parent.rmdir()
                    changed.discard(parent)
                    parent = parent.parent
            changed.add(parent)
        for folder in changed:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _sync(folder)

    def _list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        found: list[StoredObject] = []
        for item in self._walk(prefix, start_after):
            if len(found) == limit:
                break
            found.append(item)
        return found

    def _walk(self, prefix: str, start_after: str) -> Iterator[StoredObject]:
        """Files below `prefix` after `start_after`, in the order of their keys ("a-b/x" comes before "a/x")."""
        folder = self._path(prefix.removesuffix("/")) if prefix else self._root
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        named = [(f"{prefix}{entry.name}" + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries]
        for key, entry in sorted(named, key=lambda pair: pair[0]):
            if entry.name.startswith(".") or (key <= start_after and not start_after.startswith(key)):
                continue
            if key.endswith("/"):
                yield from self._walk(key, start_after)
            elif key > start_after and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    yield StoredObject(key, entry.stat(follow_symlinks=False).st_size)

    def _check(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with os.scandir(self._root):  # raises if it cannot be read
            pass
        if not self._swept:
            self._sweep()
            self._swept = True

    def _sweep(self) -> None:
        """Remove what killed processes left; a file that is locked is being written by a live one."""
        with contextlib.suppress(FileNotFoundError):
            for path in (self._root / _INCOMING).iterdir():
                with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
