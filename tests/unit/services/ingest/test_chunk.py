"""Cutting documents into references."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.identity import reference_id
from services.common.sentences import sentences
from services.ingest.chunk import MAX_REFERENCE_CHARACTERS, Cutter, cut
from services.ingest.documents import SourceDocument

LIMIT = 32
words = st.sampled_from(["the", "house", "Was", "built", "in", "1852", "3.14", "Zürich", "Dr.", "東京", "🙂", "x" * 70])
ends = st.sampled_from([". ", "! ", " ", "\n\n", "\n", ", ", "。", "... ", "\t "])
prose = st.lists(st.tuples(words, ends), max_size=120).map(lambda pairs: "".join(a + b for a, b in pairs))


@given(text=prose | st.text(max_size=400))
def test_no_text_is_lost_and_no_reference_is_too_long(counter, text):
    at = 0
    for piece in cut(text, counter, LIMIT):
        assert not text[at : piece.start].strip(), "only white space lies between references"
        said = text[piece.start : piece.end]
        assert said == said.strip() != ""
        assert piece.num_tokens == len(counter.token_ends(said)) <= LIMIT
        at = piece.end
    assert not text[at:].strip()


@given(text=prose)
def test_packing_is_greedy(counter, text):
    """The sentence that opens a reference would not have fitted into the one before."""
    pieces = list(cut(text, counter, LIMIT))
    spans = list(sentences(text))
    for before, after in pairwise(pieces):
        whole = [span for span in spans if span[0] == after.start]
        if whole:
            longer = text[before.start : whole[0][1]]
            assert len(counter.token_ends(longer)) > LIMIT


def test_references_end_at_sentences_where_they_can(counter):
    wanted = ["He was in the house. She was at the sea.", "They talked of it. He was in it."]
    limit = max(len(counter.token_ends(sentence)) for sentence in wanted)
    text = " ".join(wanted)
    assert [text[p.start : p.end] for p in cut(text, counter, limit)] == wanted


def test_a_long_sentence_is_cut_between_words(counter):
    text = " ".join(f"word{number}" for number in range(40))
    pieces = [text[p.start : p.end] for p in cut(text, counter, LIMIT)]
    assert len(pieces) > 1
    assert " ".join(pieces) == text


def test_a_long_word_is_cut_between_characters(counter):
    text = "q" * 500 + "é" * 100
    pieces = [text[p.start : p.end] for p in cut(text, counter, LIMIT)]
    assert "".join(pieces) == text
    assert all(len(piece) <= LIMIT for piece in pieces)


def test_the_rest_of_a_long_sentence_is_packed_with_the_next(counter):
    text = " ".join(["the"] * 33) + ". It was."
    pieces = [text[p.start : p.end] for p in cut(text, counter, LIMIT)]
    assert pieces[-1].endswith(". It was.")


def test_a_reference_has_a_bound_on_characters_even_if_tokens_are_few():
    class OneToken:
        def token_ends(self, text):
            return [len(text)]

    text = "-" * (3 * MAX_REFERENCE_CHARACTERS + 5)
    pieces = list(cut(text, OneToken(), 128))
    assert max(p.end - p.start for p in pieces) == MAX_REFERENCE_CHARACTERS
    assert pieces[-1].end == len(text)


def test_a_cut_document_names_its_references(counter):
    document = SourceDocument("d", "T", "here", "One was. " * 30)
    result = Cutter(counter, "small", LIMIT).cut(document)
    assert [r.ordinal for r in result.references] == list(range(len(result.references)))
    assert [r.preceding for r in result.references] == ["", *(r.text for r in result.references[:-1])]
    for reference in result.references:
        assert reference.text == document.text[reference.start_char : reference.end_char]
        assert reference.reference_id == reference_id(reference.text, reference.preceding)
        assert (reference.document_id, reference.title, reference.source) == ("d", "T", "here")


@pytest.mark.parametrize("change", [{"text": "Two."}, {"title": "U"}, {"source": "there"}])
def test_the_version_says_whether_references_are_equal(counter, change):
    fields = {"document_id": "d", "title": "T", "source": "here", "text": "One."}
    cutter = Cutter(counter, "small", LIMIT)
    version = cutter.version(SourceDocument(**fields))
    assert version == cutter.version(SourceDocument(**fields, num_bytes=7))
    assert version != cutter.version(SourceDocument(**{**fields, **change}))
    assert version != Cutter(counter, "small", LIMIT - 1).version(SourceDocument(**fields))
    assert version != Cutter(counter, "other tokenizer", LIMIT).version(SourceDocument(**fields))
