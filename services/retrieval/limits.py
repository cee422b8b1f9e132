"""The limits of the retrieval contract and their checks. Each message names the value, the limit and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memory3.errors import MalformedRequestError
from memory3.types import Reference

MAX_TEXTS = 256
MAX_TOP_K = 100
MAX_FILTER_DOCUMENTS = 100
MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_REFERENCE_TOKENS = 128

# Bytes of UTF-8 that a row of the index has room for.
MAX_TEXT_BYTES = 32_768
MAX_ID_BYTES = 1_024
MAX_LABEL_BYTES = 4_096

_BANK = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_REFERENCE_ID = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_bank(bank: str) -> None:
    """Raises MalformedRequestError unless `bank` is a bank's name."""
    if not _BANK.fullmatch(bank):
        raise MalformedRequestError(
            f"bank {bank[:80]!r} is not a bank's name: use 1 to 63 characters of a-z, 0-9, '-' and '_', a letter first"
        )


def check_count(what: str, count: int, least: int, most: int) -> None:
    """Raises MalformedRequestError unless `count` is within the limits, both inclusive."""
    if not least <= count <= most:
        remedy = "send at least that many" if count < least else "split the call or ask for less"
        raise MalformedRequestError(f"{what}: {count} given, {least} to {most} allowed; {remedy}")


def check_document_ids(document_ids: Sequence[str]) -> None:
    """Raises MalformedRequestError if one of them cannot be a document's id."""
    for document_id in document_ids:
        check_id("document_id", document_id)


def check_id(what: str, value: str) -> None:
    """Raises MalformedRequestError for an empty or too long id, or one with control characters."""
    if not value:
        raise MalformedRequestError(f"{what} is empty; give 1 to {MAX_ID_BYTES} bytes")
    _check_bytes(what, value, MAX_ID_BYTES)
    if _CONTROL.search(value):
        raise MalformedRequestError(f"{what} {value[:80]!r} has control characters; replace them")


def check_reference_ids(reference_ids: Sequence[str]) -> None:
    """Raises MalformedRequestError if one of them is not 32 lower-case hex digits."""
    for reference_id in reference_ids:
        if not _REFERENCE_ID.fullmatch(reference_id):
            raise MalformedRequestError(
                f"reference_id {reference_id[:80]!r} is not 32 lower-case hex digits; take ids from hits or ingest"
            )


def check_part(document_id: str, version: str, references: Sequence[Reference]) -> None:
    """Raises MalformedRequestError unless the references can be one part of the document."""
    check_id("document_id", document_id)
    check_id("version", version)
    if not references:
        raise MalformedRequestError(
            f"references of document {document_id!r}: none given, at least 1 needed; to empty a document, delete it"
        )
    check_reference_ids([reference.reference_id for reference in references])
    first = references[0]
    _check_bytes("title", first.title, MAX_LABEL_BYTES)
    _check_bytes("source", first.source, MAX_LABEL_BYTES)
    ordinals: set[int] = set()
    for reference in references:
        where = f"reference {reference.ordinal} of document {document_id!r}"
        if reference.document_id != document_id:
            raise MalformedRequestError(f"{where} says document_id {reference.document_id!r}; both must agree")
        if (reference.title, reference.source) != (first.title, first.source):
            raise MalformedRequestError(f"{where} has another title or source than the first; they must agree")
        if reference.ordinal in ordinals:
            raise MalformedRequestError(f"{where} comes twice; number the references from 0")
        ordinals.add(reference.ordinal)
        if not reference.text:
            raise MalformedRequestError(f"{where} has no text")
        _check_bytes(f"text of {where}", reference.text, MAX_TEXT_BYTES)
        _check_bytes(f"preceding text of {where}", reference.preceding, MAX_TEXT_BYTES)
        check_count(f"num_tokens of {where}", reference.num_tokens, 1, MAX_REFERENCE_TOKENS)
        if reference.end_char < reference.start_char:
            raise MalformedRequestError(
                f"{where} ends at character {reference.end_char}, before its start {reference.start_char}"
            )


def _check_bytes(what: str, value: str, most: int) -> None:
    size = len(value.encode())
    if size > most:
        raise MalformedRequestError(f"{what} has {size} bytes of UTF-8, at most {most} are allowed; shorten it")
