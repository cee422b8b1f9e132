"""MemoryPlan: what it refuses, and that it survives the trip through JSON."""

import dataclasses
import json

import pytest

from model.config import ModelConfig
from model.plan import MemoryPlan
from model.presets import memory_plan, memory_plan_names

PAGES = ((0, 2), (1, 1))


def a_plan(**changes: object) -> MemoryPlan:
    fields: dict[str, object] = {
        "name": "test",
        "memory_layers": (1, 3),
        "tokens_per_memory": 8,
        "selection": "attention",
        "group_combine": "sum",
    }
    return MemoryPlan(**(fields | changes))  # type: ignore[arg-type]


def a_config(num_layers: int = 4, max_context_tokens: int = 2048) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        hidden_dim=64,
        mlp_dim=96,
        vocab_size=272,
        rope_theta=1e4,
        rms_norm_eps=1e-5,
        tied_embeddings=True,
        max_context_tokens=max_context_tokens,
    )


@pytest.mark.parametrize("name", memory_plan_names())
def test_presets_survive_json(name: str) -> None:
    plan = memory_plan(name)
    assert MemoryPlan.from_json(plan.to_json()) == plan


def test_json_is_canonical() -> None:
    plan = a_plan()
    shuffled = json.dumps(dict(reversed(json.loads(plan.to_json()).items())), indent=2)
    assert MemoryPlan.from_json(shuffled).to_json() == plan.to_json()


def test_lists_become_tuples() -> None:
    plan = a_plan(memory_layers=[1, 3], codec=["int8"])
    assert plan == a_plan()
    assert hash(plan) == hash(a_plan())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"memory_layers": ()}, "at least one layer"),
        ({"memory_layers": (3, 1)}, "ascending"),
        ({"memory_layers": (1, 1)}, "once"),
        ({"memory_layers": (-1,)}, "-1"),
        ({"memory_layers": (True,)}, "True"),
        ({"tokens_per_memory": 0}, "from 1 to 128"),
        ({"tokens_per_memory": 129}, "129"),
        ({"tokens_per_memory": 8.0}, "8.0"),
        ({"max_reference_tokens": 257}, "from 1 to 256"),
        ({"query_chunk_tokens": 0}, "query_chunk_tokens"),
        ({"memories_per_chunk": 0}, "memories_per_chunk"),
        ({"selection": "best"}, "value_norm"),
        ({"group_combine": "min"}, "mean"),
        ({"codec": ()}, "int8"),
        ({"codec": ("",)}, "int8"),
        ({"prefix": None}, "prefix"),
        ({"pages_per_head": ((1, 1),)}, "2 memory layers"),
        ({"pages_per_head": ((1, 1), (1,))}, r"\[2, 1\] numbers"),
        ({"pages_per_head": ((2, 1), (1, 1))}, "gives away 5 pages; give as many as there are heads, 4, or a multiple"),
        ({"pages_per_head": ((0, 0), (0, 0))}, "gives away 0 pages"),
        ({"pages_per_head": ((2, 2), (2, 2)), "tokens_per_memory": 7}, "is 7, which 2 pages.*a multiple of 2"),
        ({"pages_per_head": ((3, -1), (1, 1))}, "-1"),
        ({"pages_per_head": ((1.0, 1), (1, 1))}, "1.0"),
    ],
)
def test_contradictions_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        a_plan(**changes)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "JSON object"),
        ("{", "Expecting"),
        ('{"name":"x"}', "missing"),
        (json.dumps(json.loads(a_plan().to_json()) | {"layers": [1]}), "layers"),
        (json.dumps(json.loads(a_plan().to_json()) | {"memory_layers": 5}), "not iterable"),
    ],
)
def test_foreign_json_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MemoryPlan.from_json(text)


def test_validate_names_layer_and_limit() -> None:
    a_plan().validate(a_config(num_layers=4))
    with pytest.raises(ValueError, match=r"layer 3.*3 layers \(0 to 2\)"):
        a_plan().validate(a_config(num_layers=3))


def test_validate_wants_room_for_references_and_one_chunk() -> None:
    a_plan().validate(a_config(max_context_tokens=192))
    with pytest.raises(ValueError, match=r"192 positions.*191"):
        a_plan().validate(a_config(max_context_tokens=191))


def test_validate_wants_room_to_write_behind_what_precedes() -> None:
    plan = a_plan(preceding_tokens=128, selection="reconstruction")
    plan.validate(a_config(max_context_tokens=384))
    with pytest.raises(ValueError, match=r"over 384 positions \(preceding_tokens 128.*the model has 383; lower either"):
        plan.validate(a_config(max_context_tokens=383))


def test_a_plan_that_looks_at_nothing_before_a_reference_is_written_as_before_it_could() -> None:
    assert "preceding_tokens" not in a_plan().to_json()
    plan = a_plan(preceding_tokens=3)
    assert MemoryPlan.from_json(plan.to_json()) == plan
    assert plan.in_view([1, 2, 3, 4]) == [2, 3, 4]
    assert plan.in_view([1]) == [1]
    assert a_plan().in_view([1, 2]) == ()


def test_every_field_is_either_written_or_read_only() -> None:
    """A new field must be placed: does it change what a memory holds?"""
    full = a_plan(pages_per_head=PAGES, selection="trained", token_scorer="ab12", preceding_tokens=64)
    written = set(full.written())
    assert written == {
        "memory_layers",
        "tokens_per_memory",
        "selection",
        "group_combine",
        "max_reference_tokens",
        "prefix",
        "pages_per_head",
        "token_scorer",
        "preceding_tokens",
    }
    rest = {field.name for field in dataclasses.fields(MemoryPlan)} - written
    assert rest == {"name", "query_chunk_tokens", "memories_per_chunk", "context_bos", "separator", "codec"}


def test_scorer_survives_json_and_is_left_out_where_there_is_none() -> None:
    plan = a_plan(selection="trained", token_scorer="ab12")
    assert MemoryPlan.from_json(plan.to_json()) == plan
    assert plan.repeats_references
    assert "token_scorer" not in a_plan().to_json()


@pytest.mark.parametrize("changes", [{"selection": "trained"}, {"token_scorer": "ab12"}])
def test_trained_selection_and_scorer_go_together(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"give selection 'trained' the identity of a token scorer"):
        a_plan(**changes)


def test_unfitted_plan_needs_no_scorer() -> None:
    plan = a_plan(selection="trained", token_scorer="ab12", pages_per_head=PAGES)
    assert plan.unfitted() == a_plan(selection="reconstruction")
    assert a_plan(selection="causal").unfitted() == a_plan(selection="causal")


def test_pages_survive_json() -> None:
    plan = a_plan(pages_per_head=[[0, 2], [1, 1]])
    assert plan.pages_per_head == PAGES
    assert MemoryPlan.from_json(plan.to_json()) == plan
    assert plan.written()["pages_per_head"] == [[0, 2], [1, 1]]


def test_a_plan_without_pages_reads_and_is_written_as_before_there_were_any() -> None:
    assert "pages_per_head" not in a_plan().to_json()
    assert a_plan().pages(num_kv_heads=2) == ((1, 1), (1, 1))


def test_more_pages_are_smaller_and_a_memory_as_large() -> None:
    plan = a_plan(pages_per_head=((1, 2), (4, 1)))
    assert (plan.pages_each, plan.tokens_per_page) == (2, 4)
    assert plan.memory_shape(a_config()) == (2, 4, 4, 16)
    assert a_plan().memory_shape(a_config()) == a_plan(pages_per_head=PAGES).memory_shape(a_config()) == (2, 2, 8, 16)


def test_pages_are_for_the_models_heads() -> None:
    a_plan(pages_per_head=PAGES).validate(a_config())
    with pytest.raises(ValueError, match=r"\[1, 1\] heads.*2 KV heads"):
        a_plan(pages_per_head=((2,), (0,))).validate(a_config())
