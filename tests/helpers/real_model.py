"""SmolLM2-135M-Instruct out of its package, converted once for each test process; its tests are marked `weights`."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch

from model.checkpoint import load_transformer
from model.gguf_import import find_gguf, import_gguf
from model.transformer import Transformer


@functools.cache
def real_model_directory() -> Path:
    """A fresh conversion (about two seconds, 540 MB), removed at the end of the process."""
    parent = Path(tempfile.mkdtemp(prefix="memory3-test-model-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return import_gguf(find_gguf(), parent / "smollm2-135m-instruct")


@functools.cache
def real_transformer(dtype: torch.dtype = torch.float32) -> Transformer:
    return load_transformer(real_model_directory(), dtype)
