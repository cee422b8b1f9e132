"""Which model directory and which adapter a setting names. Reads files, knows no environment and no service."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from model.gguf_import import find_gguf, import_gguf

PACKAGE = "package"
"""Names the model in the installed weights package."""
AUTO, NONE = "auto", "none"
"""Name the adapter that was trained for the model, and no adapter."""
SHIPPED_ADAPTER = Path(__file__).parent / "adapters" / "smollm2-135m-memory"
"""Trained for the weights package, in this repository: see the README.md beside it."""


def locate_model(model: str, cache_dir: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """The directory `model` names; for "package" the weights package, converted once into a folder of `cache_dir`.

    `progress(done, total)` counts converted tensors. Raises CheckpointError if there is no weights package or it cannot
    be read, OSError if the cache cannot be written.
    """
    if model != PACKAGE:
        return Path(model).expanduser()
    gguf = find_gguf()
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # The folder's name is the model's name; the digest above it lets a new version of the package be converted anew.
    return import_gguf(gguf, cache_dir.expanduser() / digest[:12] / gguf.stem, progress)


def locate_adapter(adapter: str, model: str) -> Path | None:
    """The folder `adapter` names; for "auto" the shipped one if `model` is the weights package it was trained for.

    None where there is none: "none", and "auto" with any other model.
    """
    if adapter == AUTO:
        return SHIPPED_ADAPTER if model == PACKAGE else None
    return None if adapter == NONE else Path(adapter).expanduser()
