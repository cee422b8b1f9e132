"""What one part of a document may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memory3.errors import MalformedRequestError
from memory3.types import Reference
from services.retrieval import limits
from tests.helpers.references import references_of

FIRST, SECOND = references_of("d", ["one", "two"])


def test_a_good_part_passes() -> None:
    limits.check_part("d", "v1", [FIRST, SECOND])


@pytest.mark.parametrize("bank", ["a", "a-b_c9", "z" * 63])
def test_good_names_pass(bank: str) -> None:
    limits.check_bank(bank)


@pytest.mark.parametrize("bank", ["", "9a", "-a", "A", "a b", "a" * 64, "ä", "a\n"])
def test_bad_names_are_refused(bank: str) -> None:
    with pytest.raises(MalformedRequestError, match="is not a bank's name"):
        limits.check_bank(bank)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([], "at least 1 needed"),
        ([replace(FIRST, document_id="e")], "both must agree"),
        ([FIRST, replace(SECOND, title="other")], "another title or source"),
        ([FIRST, replace(SECOND, source="other")], "another title or source"),
        ([FIRST, replace(SECOND, ordinal=0)], "comes twice"),
        ([replace(FIRST, text="")], "has no text"),
        ([replace(FIRST, text="ü" * 20_000)], "40000 bytes of UTF-8, at most 32768"),
        ([replace(FIRST, title="t" * 5_000)], "title has 5000 bytes"),
        ([replace(FIRST, source="s" * 5_000)], "source has 5000 bytes"),
        ([replace(FIRST, reference_id="A" * 32)], "32 lower-case hex digits"),
        ([replace(FIRST, num_tokens=0)], "num_tokens of reference 0"),
        ([replace(FIRST, num_tokens=129)], "129 given, 1 to 128 allowed"),
        ([replace(FIRST, start_char=9, end_char=3)], "before its start 9"),
    ],
)
def test_bad_parts_are_refused(references: list[Reference], message: str) -> None:
    with pytest.raises(MalformedRequestError, match=message):
        limits.check_part("d", "v1", references)


@pytest.mark.parametrize(
    ("document_id", "version", "message"),
    [
        ("", "v1", "document_id is empty"),
        ("d", "", "version is empty"),
        ("a\tb", "v1", "control characters"),
        ("a\0b", "v1", "control characters"),
        ("d" * 1_025, "v1", "1025 bytes"),
        ("d", "v" * 1_025, "1025 bytes"),
    ],
)
def test_bad_ids_are_refused(document_id: str, version: str, message: str) -> None:
    with pytest.raises(MalformedRequestError, match=message):
        limits.check_part(document_id, version, [replace(FIRST, document_id=document_id)])
