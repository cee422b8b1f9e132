"""Every field of a request has a limit, and its refusal names value, limit and remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memory3.errors import MalformedRequestError
from memory3.types import GenerationRequest, Message, Mode, Sampling
from services.decoder.validation import check_generation, check_write

GOOD = GenerationRequest(Mode.MEMORY, prompt="Hello", bank="facts")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": Mode.NONE, "bank": ""},
        {"prompt": None, "messages": [Message("user", "Hello")]},
        {"prompt": None, "messages": [Message("system", ""), Message("user", "Hello")]},
        {"sampling": Sampling(temperature=10, top_k=2**32 - 1, top_p=1, seed=2**64 - 1)},
        {"stop": ["x" * 64] * 8},
        {"document_ids": ["d"] * 100},
        {"recall_deadline_ms": 0},
        {"recall_deadline_ms": 60_000},
        {"memories_per_chunk": 5},
        {"max_tokens": 2**32 - 1},  # the worker knows the context's size
    ],
)
def test_what_is_served(changes: dict[str, Any]) -> None:
    check_generation(replace(GOOD, **changes), 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": ""}, "neither prompt nor messages"),
        ({"prompt": None}, "neither prompt nor messages"),
        ({"messages": [Message("user", "Hello")]}, "both a prompt and messages"),
        ({"prompt": None, "messages": [Message("user", " ")]}, "all messages are empty"),
        ({"bank": ""}, "mode MEMORY reads references and no bank is named"),
        ({"mode": Mode.RAG, "bank": ""}, "mode RAG reads references and no bank is named"),
        ({"sampling": Sampling(temperature=10.1)}, "temperature is 10.1; give 0"),
        ({"sampling": Sampling(temperature=-1)}, "temperature is -1"),
        ({"sampling": Sampling(temperature=float("nan"))}, "temperature is nan"),
        ({"sampling": Sampling(top_p=1.5)}, "top_p is 1.5; give 0 to 1"),
        ({"sampling": Sampling(top_p=float("nan"))}, "top_p is nan"),
        ({"stop": ["a"] * 9}, "9 stop sequences; at most 8"),
        ({"stop": [""]}, "0 characters; give 1 to 64"),
        ({"stop": ["x" * 65]}, "65 characters; give 1 to 64"),
        ({"document_ids": ["d"] * 101}, "101 document ids; at most 100"),
        ({"recall_deadline_ms": 60_001}, "recall_deadline_ms is 60001; at most 60000"),
        ({"memories_per_chunk": 6}, "memories_per_chunk is 6; this model's plan reads 5"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedRequestError, match=words):
        check_generation(replace(GOOD, **changes), 5)


def test_a_write_names_a_bank_and_1_to_64_references() -> None:
    check_write("facts", [("id", "text")] * 64)
    for bank, count, words in (("", 1, "no bank"), ("facts", 0, "0 references"), ("facts", 65, "65 references")):
        with pytest.raises(MalformedRequestError, match=words):
            check_write(bank, [("id", "text")] * count)
