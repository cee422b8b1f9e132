"""Reading config.json: what is accepted, what is refused and how it says so."""

from dataclasses import replace
from typing import Any

import pytest

from model.checkpoint import read_config
from model.config import ModelConfig
from model.presets import memory_plan, memory_plan_names, model_config, model_config_names, plan_made_for
from tests.helpers.real_model import real_model_directory

HF: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


def test_what_a_file_leaves_out():
    config = ModelConfig.from_hf_json(HF)
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (4, 16, 10_000.0)
    assert not config.tied_embeddings
    assert config.heads_per_kv_head == 1


@pytest.mark.parametrize("name", model_config_names())
def test_round_trip(name: str):
    config = model_config(name)
    assert ModelConfig.from_hf_json(config.to_hf_json()) == config


@pytest.mark.parametrize(
    "rope", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}], ids=["old", "new"]
)
def test_both_places_of_theta(rope: dict[str, Any]):
    assert ModelConfig.from_hf_json(HF | rope).rope_theta == 5e5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "RoPE scaling 'linear'; only plain"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "RoPE scaling 'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "RoPE scaling 'yarn'"),
        ({"model_type": "mistral"}, "model_type 'mistral'; only 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"num_key_value_heads": 3}, "num_heads is 4, no multiple of num_kv_heads 3"),
        ({"head_dim": 5}, "head_dim is 5; RoPE needs an even number"),
        ({"num_hidden_layers": 0}, "num_layers is 0"),
    ],
)
def test_refuses_what_it_would_get_wrong(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf_json(HF | change)


def test_names_what_is_missing():
    with pytest.raises(ValueError, match="lacks hidden_size, vocab_size"):
        ModelConfig.from_hf_json({key: value for key, value in HF.items() if key not in ("hidden_size", "vocab_size")})


def test_presets_fit_their_models():
    memory_plan("paper").validate(model_config("paper-2.4b"))
    assert memory_plan("paper").memory_layers == tuple(range(model_config("paper-2.4b").num_layers // 2))
    assert len(memory_plan("smollm2-135m").memory_layers) == model_config("smollm2-135m").num_layers // 2


def test_the_plan_made_for_a_model_goes_by_its_sizes():
    renamed = replace(model_config("smollm2-135m"), name="my-copy", max_context_tokens=2048)
    assert plan_made_for(renamed) == memory_plan("smollm2-135m")
    assert plan_made_for(model_config("paper-2.4b")) == memory_plan("paper")
    with pytest.raises(ValueError, match=r"no memory plan was made for model 'other'; name one: paper, .*JSON file"):
        plan_made_for(replace(renamed, name="other", num_layers=31))


@pytest.mark.weights
def test_the_smollm2_preset_is_the_packages_model():
    read, preset = read_config(real_model_directory()), model_config("smollm2-135m")
    assert read.rms_norm_eps == pytest.approx(preset.rms_norm_eps, rel=1e-6)
    assert replace(read, name=preset.name, rms_norm_eps=preset.rms_norm_eps) == preset


@pytest.mark.parametrize("lookup", [model_config, memory_plan])
def test_unknown_preset_names_the_known(lookup: Any):
    with pytest.raises(ValueError, match=r"'nonesuch'; choose one of .*paper"):
        lookup("nonesuch")
    assert set(memory_plan_names()) == {"paper", "smollm2-135m"}
