"""Embedder without weights: hashed words and word pairs. Deterministic on every machine; for tests and tiny set-ups.

Texts that share words are near each other; it knows no meaning.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Sequence

import numpy as np

from services.retrieval.ports import Vectors

_WORD = re.compile(r"\w+")


class HashEmbedder:
    """Signed feature hashing of words and word pairs into `dimension` numbers."""

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension
        self.embedder_id = f"hash-1-{dimension}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector for each text; a text without words gets the first axis."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            words = _WORD.findall(text.casefold())
            for feature in [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]:
                place, sign = _slot(feature)
                vector[place % self.dimension] += sign
            if not vector.any():
                vector[0] = 1
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


@functools.lru_cache(maxsize=65_536)
def _slot(feature: str) -> tuple[int, int]:
    digest = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return digest >> 1, 1 if digest & 1 else -1
