"""`python -m services.memory.copy_out PREFIX FOLDER`: copy what lies below a prefix of the bucket into a folder.

An init step of pods that read model weights. A file that is there with its whole size is left: a second run is cheap.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path, PurePosixPath

from memory3.errors import Memory3Error
from services.common import bootstrap
from services.common.config import load
from services.common.signals import end_at_sigterm
from services.memory.config import MemorySettings, S3Location
from services.memory.s3_store import S3ObjectStore

_PAGE = 500
_HOURS_S = 3_600.0
"""Time limit of one file."""


async def copy_out(store: S3ObjectStore, prefix: str, folder: Path) -> int:
    """Files there afterwards. Raises Memory3Error, OSError, and ValueError for a key that leaves the folder."""
    base = prefix.strip("/") + "/"
    count, after = 0, ""
    while page := await store.list(base, after, _PAGE):
        for item in page:
            parts = PurePosixPath(item.key.removeprefix(base)).parts
            if item.key.endswith("/"):
                continue  # a console's idea of a folder
            if not parts or ".." in parts:
                raise ValueError(f"object {item.key!r} names no file below {base!r}")
            target = folder.joinpath(*parts)
            if not (target.is_file() and target.stat().st_size == item.size_bytes):
                await _copy(store, item.key, target)
                bootstrap.say(f"{target}: {item.size_bytes} bytes")
            count += 1
        after = page[-1].key
    return count


async def _copy(store: S3ObjectStore, key: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("wb") as file:
        async for piece in store.pieces(key):
            await asyncio.to_thread(file.write, piece)
    part.replace(target)


async def run(settings: MemorySettings, prefix: str, folder: Path) -> None:
    """Raises SystemExit (1) with the reason and the remedy."""
    location = settings.location
    if not isinstance(location, S3Location):
        sys.exit(f"MEMORY3_MEMORY_STORE_URI={settings.store_uri} is no bucket; give s3://bucket?endpoint=...")
    store = S3ObjectStore(location, *settings.s3_keys, timeout_s=_HOURS_S, ca=settings.s3_ca)
    if not await copy_out(store, prefix, folder):
        sys.exit(f"bucket {location.bucket!r} has nothing below {prefix!r}; upload the model directories there")


def main() -> None:
    """Entry point."""
    end_at_sigterm()
    if len(sys.argv) != 3:
        sys.exit("usage: python -m services.memory.copy_out PREFIX FOLDER")
    try:
        asyncio.run(run(load(MemorySettings), sys.argv[1], Path(sys.argv[2])))
    except (Memory3Error, OSError, ValueError) as error:
        raise SystemExit(f"the weights cannot be copied: {error}") from error


if __name__ == "__main__":
    main()
