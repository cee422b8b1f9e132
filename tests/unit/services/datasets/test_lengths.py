"""Texts are cut without a tokenizer, and yet fit."""

from __future__ import annotations

import itertools

import pytest

from services.datasets import halueval, licences, phenotypes, wikipedia
from services.datasets.lengths import chunks, digest, fits
from services.datasets.registry import load
from services.ingest import tokenizer


def test_chunks_are_whole_sentences():
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(60))
    pieces = chunks(text)
    assert len(pieces) > 3
    assert " ".join(pieces) == text
    assert all(piece.endswith(".") and fits(piece) for piece in pieces)
    assert all(not fits(f"{one} {other.partition('. ')[0]}") for one, other in itertools.pairwise(pieces))


def test_a_long_sentence_is_cut_between_words():
    pieces = chunks("word " * 400, tokens=64)
    assert all(fits(piece, 64) for piece in pieces)
    assert " ".join(pieces).split() == ["word"] * 400


def test_a_digest_keeps_the_order_of_the_text():
    sentences = [f"Sentence {place} " + "goes on and on " * 10 + "." for place in range(4)]
    assert digest(sentences, [2, 0, 1, 3]) == f"{sentences[0]} {sentences[2]}"


@pytest.mark.weights
def test_what_fits_by_the_estimate_has_at_most_128_tokens(tmp_path):
    counter = tokenizer.load("package", tmp_path)
    fiction = [text for item in load("fiction", split="train", items=100, seed=0) for text in item.references]
    passages = [question.passage for question in halueval.questions()[::5]]
    texts = [piece for document in wikipedia.leads()[::10] for piece in chunks(document.text)]
    terms = [term.reference for term in phenotypes.terms()[::10]]
    law = [document.text for document in licences.documents()[::3]]
    lengths = sorted(len(counter.token_ends(text)) for text in [*fiction, *passages, *texts, *terms, *law])
    too_long = sum(length > 128 for length in lengths)
    assert too_long / len(lengths) < 0.002
    assert lengths[-1] <= 144
    assert max(len(counter.token_ends(text)) for text in fiction) <= 100
