"""Cut a document's text into references of at most 128 tokens, at sentence boundaries where there are any.

Greedy: a reference takes sentences as long as they fit. A sentence that is too long is cut between words, a word that
is too long between characters. Nothing but white space between references is lost. Knows no files and no services.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from memory3.types import Reference
from model.identity import reference_id
from services.common.sentences import sentences
from services.ingest.documents import SourceDocument
from services.ingest.ports import TokenCounter

CUTTING_RULE = 2
"""Raise it when the same text would be cut otherwise; documents then count as changed and are ingested again."""

MAX_REFERENCE_CHARACTERS = 4096
"""Bound on what is tokenised at once, and so on the length of a reference; 128 tokens of prose are some 600."""


@dataclass(frozen=True)
class Piece:
    """text[start:end], which has `num_tokens` tokens."""

    start: int
    end: int
    num_tokens: int


def cut(text: str, counter: TokenCounter, max_tokens: int) -> Iterator[Piece]:
    """The pieces of `text`, in order, each of at most `max_tokens` tokens and without white space at its ends."""
    opened: Piece | None = None
    for start, end in sentences(text):
        if opened is not None:
            longer = _measured(text, opened.start, end, counter, max_tokens)
            if longer is not None:
                opened = longer
                continue
            yield opened
        whole = _measured(text, start, end, counter, max_tokens)
        if whole is None:
            *full, opened = _cut_sentence(text, start, end, counter, max_tokens)
            yield from full
        else:
            opened = whole
    if opened is not None:
        yield opened


def _measured(text: str, start: int, end: int, counter: TokenCounter, max_tokens: int) -> Piece | None:
    """The piece if it fits."""
    if end - start > MAX_REFERENCE_CHARACTERS:
        return None
    num_tokens = len(counter.token_ends(text[start:end]))
    return Piece(start, end, num_tokens) if num_tokens <= max_tokens else None


def _cut_sentence(text: str, start: int, end: int, counter: TokenCounter, max_tokens: int) -> Iterator[Piece]:
    while start < end:
        stop = min(end, start + MAX_REFERENCE_CHARACTERS)
        piece = _longest_prefix(text, start, stop, end, counter=counter, max_tokens=max_tokens)
        yield piece
        start = piece.end
        while start < end and text[start].isspace():
            start += 1


def _longest_prefix(text: str, start: int, stop: int, end: int, *, counter: TokenCounter, max_tokens: int) -> Piece:
    """The longest piece from `start` that ends between words, or inside the first word if that is too long."""
    while True:
        if stop < end:
            stop = _between_words(text, start, stop)
        ends = counter.token_ends(text[start:stop])
        if len(ends) <= max_tokens:
            return Piece(start, stop, len(ends))
        # A cut changes the tokens near it, so the shorter prefix is counted again; it shrinks by at least a character.
        stop = max(start + 1, min(stop - 1, start + ends[max_tokens - 1]))
        if stop == start + 1:
            return Piece(start, stop, len(counter.token_ends(text[start:stop])))


def _between_words(text: str, start: int, stop: int) -> int:
    """The end of the last whole word of text[start:stop]; `stop` itself where there is no such place."""
    if text[stop].isspace():
        return len(text[start:stop].rstrip()) + start
    place = stop
    while place > start and not text[place - 1].isspace():
        place -= 1
    trimmed = len(text[start:place].rstrip()) + start
    return trimmed if trimmed > start else stop


@dataclass(frozen=True)
class CutDocument:
    """A document with its version and its references, in order."""

    document: SourceDocument
    version: str
    references: tuple[Reference, ...]


class Cutter:
    """Cuts documents by one rule: tokenizer and longest reference."""

    def __init__(self, counter: TokenCounter, tokenizer_digest: str, max_tokens: int = 128) -> None:
        self._counter = counter
        self._max_tokens = max_tokens
        self._rule = json.dumps([CUTTING_RULE, tokenizer_digest, max_tokens])

    def version(self, document: SourceDocument) -> str:
        """Hash, 32 hex digits, of all that decides the document's references."""
        content = json.dumps([self._rule, document.title, document.source, document.text])
        return hashlib.sha256(b"memory3 document v1\0" + content.encode()).hexdigest()[:32]

    def cut(self, document: SourceDocument) -> CutDocument:
        """The document's references; none if its text is empty, or has no characters the vocabulary knows."""
        pieces = [piece for piece in cut(document.text, self._counter, self._max_tokens) if piece.num_tokens > 0]
        texts = [document.text[piece.start : piece.end] for piece in pieces]
        references = tuple(
            self._reference(document, ordinal, piece, text, preceding)
            for ordinal, (piece, text, preceding) in enumerate(zip(pieces, texts, ["", *texts], strict=False))
        )
        return CutDocument(document, self.version(document), references)

    @staticmethod
    def _reference(document: SourceDocument, ordinal: int, piece: Piece, text: str, preceding: str) -> Reference:
        return Reference(
            reference_id=reference_id(text, preceding),
            text=text,
            document_id=document.document_id,
            title=document.title,
            source=document.source,
            ordinal=ordinal,
            start_char=piece.start,
            end_char=piece.end,
            num_tokens=piece.num_tokens,
            preceding=preceding,
        )
