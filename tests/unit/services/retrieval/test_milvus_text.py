"""How our words are written for Milvus."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.milvus_text import among, bank_of, collection_of, literal, without_credentials

BANKS = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)


@given(BANKS, BANKS)
def test_no_two_banks_share_a_collection_in_any_case(one: str, other: str) -> None:
    if one != other:
        assert collection_of(one).lower() != collection_of(other).lower()


@given(BANKS)
def test_a_collection_leads_back_to_its_bank(bank: str) -> None:
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,254}", collection_of(bank))
    assert bank_of(collection_of(bank)) == bank


def test_collections_of_others_are_not_ours() -> None:
    for name in ("other", "memory3", "memory3_a_x", "memory3_a-b", "Memory3_a"):
        assert bank_of(name) is None, name


@given(st.text())
def test_a_literal_says_exactly_its_value(value: str) -> None:
    written = literal(value)
    assert json.loads(written) == value
    assert '"' not in re.sub(r"\\.", "", written[1:-1])


def test_a_filter_of_several_values() -> None:
    assert among("document_id", ["a", 'b"']) == r'document_id in ["a", "b\""]'


def test_addresses_lose_their_credentials() -> None:
    assert without_credentials("https://root:secret@milvus.example:19530/db") == "https://milvus.example:19530"
    assert without_credentials("http://milvus") == "http://milvus"
