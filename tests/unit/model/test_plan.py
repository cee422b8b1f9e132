"""MemoryPlan: what it refuses, and that it survives the trip through JSON."""

import dataclasses
import json

import pytest

from model.config import ModelConfig
from model.plan import MemoryPlan
from model.presets import memory_plan, memory_plan_names


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


def test_every_field_is_either_written_or_read_only() -> None:
    """A new field must be placed: does it change what a memory holds?"""
    written = set(a_plan().written())
    assert written == {
        "memory_layers",
        "tokens_per_memory",
        "selection",
        "group_combine",
        "max_reference_tokens",
        "prefix",
    }
    rest = {field.name for field in dataclasses.fields(MemoryPlan)} - written
    assert rest == {"name", "query_chunk_tokens", "memories_per_chunk", "context_bos", "separator", "codec"}


def test_memory_rows() -> None:
    assert a_plan(tokens_per_memory=8, memories_per_chunk=5).memory_rows == 40
