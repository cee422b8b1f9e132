"""A disk that is soon full, or read-only, for tests of what a program does then."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at `folder`, inside the block; root makes one, others skip the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; the unit tests fill a disk in other ways")
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted small disk: "ro", "rw", "size=9m"."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
