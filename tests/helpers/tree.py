"""The repository as files: what is tracked, and what each Python module imports."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("memory3", "model", "services")
SERVERS = ("retrieval", "memory", "decoder")
JOBS = ("ingest", "launch", "planning", "evaluation", "training", "quantisation")
LIBRARIES = ("common", "datasets")
"""Folders of services/ that are no process: others import them."""


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository, ignored ones left out; new ones that nobody has added yet belong to it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return tuple(sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()))


def generated(path: Path) -> bool:
    """Whether a tool writes this file: the stubs."""
    return path.is_relative_to(ROOT / "memory3" / "api")


def python_files(*folders: str) -> list[Path]:
    """Tracked, hand-written Python files below these folders of the root."""
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and not generated(path) and any(path.is_relative_to(ROOT / name) for name in folders)
    ]


def imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, wherever in the file; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    """services/memory/core.py -> services.memory.core"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
