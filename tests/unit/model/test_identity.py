"""Identities: stable across releases, and different whenever a memory could not be read."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.identity import MEMORY_LAYOUT_VERSION, canonical_json, model_fingerprint, reference_id
from model.plan import MemoryPlan

PLAN = MemoryPlan("test", (1, 3), 8, "attention", "sum", prefix="<s>")
INT8 = [{"name": "int8", "scale_dtype": "float16"}, {"name": "pack"}]


def fingerprint(**changes: object) -> str:
    arguments: dict[str, object] = {
        "weights_digest": "w",
        "tokenizer_digest": "t",
        "plan": PLAN,
        "layout_version": 1,
        "dtype": "float32",
        "codec_description": INT8,
    }
    return model_fingerprint(**(arguments | changes))  # type: ignore[arg-type]


def test_ids_never_change() -> None:
    """These values are in the keys of every stored object: if this test fails, every bank is lost."""
    assert reference_id("The Eiffel Tower is in Paris.") == "b092b863eb81c158af34def84d1a5fc2"
    assert reference_id("é 你好 😀") == "d9d55912c05bb2d593fdcc215a3b440e"
    assert reference_id("It is of iron.", "The Eiffel Tower is in Paris.") == "c31e55bb50f8a380a00d12b7f022b3a6"
    assert fingerprint() == "a00f351d679d14adf92d70d1854a2e61"
    assert MEMORY_LAYOUT_VERSION == 1


@given(st.text(), st.text(), st.text(), st.text())
def test_what_precedes_a_reference_is_part_of_its_id(one: str, before: str, other: str, before_other: str) -> None:
    """Wherever the border between the two texts lies."""
    is_same = (one, before) == (other, before_other)
    assert (reference_id(one, before) == reference_id(other, before_other)) == is_same
    assert reference_id(one, "") == reference_id(one)
    assert (reference_id(one + before) == reference_id(one, before)) == (not before)


@given(st.text(), st.text())
def test_reference_ids_are_equal_only_for_equal_texts(one: str, other: str) -> None:
    assert (reference_id(one) == reference_id(other)) == (one == other)
    assert len(reference_id(one)) == 32
    assert set(reference_id(one)) <= set("0123456789abcdef")


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="character 2"):
        reference_id("ab\ud800")


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_digest": "v"},
        {"tokenizer_digest": "u"},
        {"layout_version": 2},
        {"dtype": "bfloat16"},
        {"codec_description": [{"name": "int8", "scale_dtype": "float32"}, {"name": "pack"}]},
        {"plan": dataclasses.replace(PLAN, memory_layers=(1, 2))},
        {"plan": dataclasses.replace(PLAN, tokens_per_memory=9)},
        {"plan": dataclasses.replace(PLAN, selection="causal")},
        {"plan": dataclasses.replace(PLAN, group_combine="max")},
        {"plan": dataclasses.replace(PLAN, max_reference_tokens=64)},
        {"plan": dataclasses.replace(PLAN, prefix="")},
    ],
)
def test_whatever_changes_a_memory_changes_the_fingerprint(changes: dict[str, object]) -> None:
    assert fingerprint(**changes) != fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"memories_per_chunk": 3},
        {"query_chunk_tokens": 32},
        {"separator": "\n"},
        {"context_bos": "<s>"},
    ],
)
def test_what_only_changes_reading_keeps_the_bank(changes: dict[str, object]) -> None:
    assert fingerprint(plan=dataclasses.replace(PLAN, **changes)) == fingerprint()  # type: ignore[arg-type]


def test_weights_and_tokenizer_cannot_be_swapped() -> None:
    assert fingerprint(weights_digest="t", tokenizer_digest="w") != fingerprint()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError):
        canonical_json(float("nan"))
