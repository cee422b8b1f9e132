"""One suite for every Embedder: hashed words, and a real sentence model."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

from services.retrieval.hash_embedder import HashEmbedder
from services.retrieval.ports import Embedder
from services.retrieval.sentence_embedder import SentenceEmbedder

TEXTS = [
    "The cat sat on the mat.",
    "A cat sat on a mat.",
    "Interest rates rose by half a point.",
    "",
    "?!",
    "猫 🐈",
]


@functools.cache
def _sentence() -> Embedder:
    return SentenceEmbedder(threads=1)


@pytest.fixture(params=["hash", pytest.param("sentence", marks=pytest.mark.weights)])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return HashEmbedder() if request.param == "hash" else _sentence()


def test_vectors_are_unit_float32_of_the_said_dimension(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_in_any_batch(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], vector, atol=1e-5)


def test_similar_texts_are_nearer_than_others(embedder: Embedder) -> None:
    cat, cats, rates, *_ = embedder.embed(TEXTS)
    assert cat @ cats > cat @ rates + 0.1


def test_very_long_texts_are_taken(embedder: Embedder) -> None:
    assert embedder.embed(["many words " * 3_000]).shape == (1, embedder.dimension)


def test_the_id_is_the_same_for_the_same_embedder(embedder: Embedder) -> None:
    again = type(embedder)() if isinstance(embedder, HashEmbedder) else SentenceEmbedder(threads=1)
    assert again.embedder_id == embedder.embedder_id


def test_hash_ids_and_vectors_do_not_depend_on_the_process() -> None:
    code = "import services.retrieval.hash_embedder as h; e = h.HashEmbedder(8); print(e.embedder_id, e.embed(['a b']))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    embedder = HashEmbedder(8)
    assert seen == {f"{embedder.embedder_id} {embedder.embed(['a b'])}\n"}


def test_hash_ids_differ_by_dimension() -> None:
    assert HashEmbedder(8).embedder_id != HashEmbedder(16).embedder_id
