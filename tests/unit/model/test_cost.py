"""The cost model: the paper's own figures, its rules for other shapes, and sizes against the real codecs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.codec.chain import CodecChain
from model.cost import BYTE_FORMATS, KNOWLEDGE_FORMATS, bytes_per_memory, crossover_uses, read_flop, write_flop
from model.presets import memory_plan, model_config
from tests.helpers.tiny_model import tiny_config, tiny_plan

CONFIG, PLAN = model_config("paper-2.4b"), memory_plan("paper")
REFERENCES = 1.12e8


class TestThePapersFigures:
    """Appendix A and section 3.3."""

    def test_operations(self) -> None:
        write, read = write_flop(CONFIG, PLAN), read_flop(CONFIG, PLAN)
        assert tuple(write) == tuple(read) == KNOWLEDGE_FORMATS
        assert write["text_rag"] == read["parameters"] == 0
        assert write["parameters"] == pytest.approx(2.24e12, rel=1e-3)
        assert write["explicit_memory"] == pytest.approx(0.308e12, rel=1e-3)
        assert read["explicit_memory"] == pytest.approx(1.44e8, rel=2e-3)
        assert read["text_rag"] == pytest.approx(0.624e12, rel=1e-3)

    def test_crossovers(self) -> None:
        ends = crossover_uses(write_flop(CONFIG, PLAN), read_flop(CONFIG, PLAN))
        assert ends["text_rag"] == pytest.approx(0.494, rel=1e-3)
        assert ends["explicit_memory"] == pytest.approx(13_400, rel=1e-3)
        assert ends["parameters"] is None

    def test_one_memory(self) -> None:
        sizes = bytes_per_memory(CONFIG, PLAN)
        assert tuple(sizes) == BYTE_FORMATS
        assert (sizes["sparse"], sizes["vq"]) == (440 * 2**10, 38.5 * 2**10)
        assert sizes["dense"] == 160 * sizes["sparse"]
        # One memory takes as much of a cache as four tokens of context do.
        assert sizes["sparse"] == 4 * sizes["kv_cache"] / PLAN.max_reference_tokens

    @pytest.mark.parametrize(
        ("name", "power", "printed"), [("dense", 50, 7.17), ("sparse", 40, 45.9), ("vq", 40, 4.02)]
    )
    def test_the_bank(self, name: str, power: int, printed: float) -> None:
        assert REFERENCES * bytes_per_memory(CONFIG, PLAN)[name] / 2**power == pytest.approx(printed, abs=0.006)


class TestOtherShapes:
    def test_small_model_counted_by_hand(self) -> None:
        # 2 layers of width 8, 2 heads of 4 dims, 1 KV head, MLP 16; the memory layer is the first one.
        config = replace(
            tiny_config(),
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=4,
            hidden_dim=8,
            mlp_dim=16,
            vocab_size=10,
        )
        plan = tiny_plan(memory_layers=(0,), tokens_per_memory=2, max_reference_tokens=6, query_chunk_tokens=5)
        attention, mlp = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8, 3 * 8 * 16
        pairs = 6 * 6 * 2 * 4  # of all heads' dimensions, full square
        assert write_flop(config, plan, training_tokens=12) == {
            "text_rag": 0,
            "explicit_memory": 2 * (6 * attention + pairs // 2 * 2 + pairs),
            "parameters": 6 * (2 * (6 * (attention + mlp) + 6 * 12 * 8) + 6 * 10 * 8),
        }
        beside = 2 * 6 * 5 * 2 * 4  # the chunk's queries against the reference: scores and values
        assert read_flop(config, plan) == {
            "text_rag": 2 * (2 * (6 * attention + pairs + beside) + 6 * mlp),
            "explicit_memory": 2 * (2 * 5 * 2 * 2 * 4),
            "parameters": 0,
        }

    def test_writing_costs_what_runs_until_the_deepest_memory_layer(self) -> None:
        early = replace(PLAN, memory_layers=(0, 1), selection="random")
        late = replace(PLAN, memory_layers=(42, 43), selection="random")
        assert write_flop(CONFIG, late)["explicit_memory"] > 20 * write_flop(CONFIG, early)["explicit_memory"]
        assert read_flop(CONFIG, late) == read_flop(CONFIG, early)

    def test_what_precedes_a_reference_costs_as_a_longer_one_would(self) -> None:
        plan = replace(PLAN, memory_layers=(0,), selection="random", max_reference_tokens=64)
        behind, longer = (
            write_flop(CONFIG, replace(plan, **changes))
            for changes in ({"preceding_tokens": 64}, {"max_reference_tokens": 128})
        )
        assert behind["explicit_memory"] == longer["explicit_memory"]
        assert behind["text_rag"] == 0
        assert behind["parameters"] == write_flop(CONFIG, plan)["parameters"]

    def test_a_selection_costs_what_it_looks_at(self) -> None:
        costs = {
            rule: write_flop(CONFIG, replace(PLAN, selection=rule))["explicit_memory"]
            for rule in ("attention", "causal", "random", "value_norm", "reconstruction")
        }
        assert costs["reconstruction"] > costs["attention"] + costs["random"]
        assert costs["random"] == costs["value_norm"]
        assert costs["attention"] - costs["random"] == 2 * (costs["causal"] - costs["random"])

    @pytest.mark.parametrize("stage", ["bf16", "int8"])
    def test_sizes_are_those_of_the_real_codec(self, stage: str) -> None:
        config, plan = tiny_config(), tiny_plan(codec=(stage,))
        shape = (len(plan.memory_layers), config.num_kv_heads, plan.tokens_per_memory, config.head_dim)
        fewer = (1, *shape[1:])
        codec = CodecChain.from_plan(plan)
        assert len(str(fewer)) == len(str(shape))  # so that the headers are equally long
        layer = codec.record_bytes(shape, 8) - codec.record_bytes(fewer, 8)
        positions = (len(plan.memory_layers) - 1) * config.num_kv_heads * plan.tokens_per_memory
        name = {"bf16": "sparse", "int8": "int8"}[stage]
        one_layer = bytes_per_memory(config, plan)[name] // len(plan.memory_layers)
        assert layer - positions == one_layer * (len(plan.memory_layers) - 1)

    @pytest.mark.parametrize("name", ["vq_bytes", "int4_group"])
    def test_a_size_below_one_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} is 0; give at least 1"):
            bytes_per_memory(CONFIG, PLAN, **{name: 0})

    def test_an_odd_dimension_is_rounded_up(self) -> None:
        config = replace(CONFIG, head_dim=2)
        vectors = bytes_per_memory(config, PLAN)["vq"] // 14
        assert bytes_per_memory(config, PLAN)["int4"] == vectors * (1 + 2)


COSTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=4)


class TestCrossovers:
    @given(COSTS, st.floats(0, 2000))
    def test_the_named_format_is_the_cheapest(self, costs: list[tuple[int, int]], uses: float) -> None:
        write = {str(number): cost for number, (cost, _) in enumerate(costs)}
        read = {str(number): cost for number, (_, cost) in enumerate(costs)}
        ends = crossover_uses(write, read)
        ahead = {name: end for name, end in ends.items() if end is None or end > uses}
        name = min(ahead, key=lambda name: float("inf") if ahead[name] is None else ahead[name])
        least = min(write[other] + uses * read[other] for other in write)
        assert write[name] + uses * read[name] == pytest.approx(least)

    def test_a_format_that_never_wins(self) -> None:
        ends = crossover_uses({"a": 0.0, "b": 10.0, "c": 11.0}, {"a": 2.0, "b": 1.0, "c": 0.0})
        assert ends == {"a": 5.5, "b": 0.0, "c": None}
