"""The limits of the memory contract and their checks. Each message names the value, the limit and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memory3.errors import MalformedRequestError
from services.memory.layout import Identity

MAX_RECORD_BYTES = 3 * 1024 * 1024
MAX_FETCH_IDS = 1024
MAX_IDS = 4096
MAX_PAGE = 1000
DEFAULT_PAGE = 100

_BANK = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ID = re.compile(r"[0-9a-f]{32}")


def check_bank(bank: str) -> None:
    """Raises MalformedRequestError unless `bank` is a bank's name."""
    if not _BANK.fullmatch(bank):
        raise MalformedRequestError(
            f"bank {bank[:80]!r} is not a bank's name: a letter a-z, then up to 62 of a-z, 0-9, '-' and '_'"
        )


def check_fingerprint(model_fingerprint: str) -> None:
    """Raises MalformedRequestError unless it has the form of a model fingerprint."""
    if not _ID.fullmatch(model_fingerprint):
        raise MalformedRequestError(
            f"model_fingerprint {model_fingerprint[:80]!r} is not 32 lower-case hex digits; the decoder's Info has it"
        )


def check_reference_ids(reference_ids: Sequence[str], least: int, most: int) -> None:
    """Raises MalformedRequestError unless there are `least` to `most` ids, both inclusive, of the right form."""
    count = len(reference_ids)
    if not least <= count <= most:
        remedy = "send at least that many" if count < least else "split the call"
        raise MalformedRequestError(f"reference_ids: {count} given, {least} to {most} allowed; {remedy}")
    for reference_id in reference_ids:
        if not _ID.fullmatch(reference_id):
            raise MalformedRequestError(
                f"reference_id {reference_id[:80]!r} is not 32 lower-case hex digits; take ids from hits or ingest"
            )


def check_identity(identity: Identity) -> None:
    """Raises MalformedRequestError unless every field has its form."""
    check_bank(identity.bank)
    check_fingerprint(identity.model_fingerprint)
    check_reference_ids([identity.reference_id], 1, 1)


def check_record_size(size_bytes: int) -> None:
    """Raises MalformedRequestError for an empty or too large record."""
    if not 0 < size_bytes <= MAX_RECORD_BYTES:
        raise MalformedRequestError(
            f"record has {size_bytes} bytes, 1 to {MAX_RECORD_BYTES} are allowed; "
            "use a plan with fewer memory layers or kept tokens, or a smaller codec"
        )


def check_page_size(page_size: int) -> int:
    """The page size to use; 0 means the default. Raises MalformedRequestError beyond the limit."""
    if not 0 <= page_size <= MAX_PAGE:
        raise MalformedRequestError(f"page_size {page_size} is beyond the limit of {MAX_PAGE}; ask for smaller pages")
    return page_size or DEFAULT_PAGE
