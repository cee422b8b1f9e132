"""Model directories: a damaged or unfitting one is refused with the file, the value and the remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import CheckpointError, load_transformer, read_config, weight_views, weights_digest
from tests.helpers.tiny_model import tiny_config, tiny_model_directory, tiny_transformer

WEIGHTS = "model.safetensors"
LAYER = "model.layers.2."


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tiny_model_directory(tmp_path / "tiny")


def _change(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_saved_is_loaded(directory: Path, dtype: torch.dtype):
    saved, loaded = weight_views(tiny_transformer()), weight_views(load_transformer(directory, dtype))
    assert saved.keys() == loaded.keys()
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor.to(dtype)), name
    assert read_config(directory) == tiny_config()


def test_names_are_those_of_hugging_face(directory: Path):
    tensors = load_file(directory / WEIGHTS)
    assert tensors["model.layers.3.self_attn.k_proj.weight"].shape == (2 * 16, 64)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (64, 96)
    assert "lm_head.weight" not in tensors


def test_missing_tensor(directory: Path):
    _change(directory, lambda tensors: tensors.pop(LAYER + "mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, first model\.layers\.2\.mlp\.up_proj\.weight"):
        load_transformer(directory)


def test_wrong_shape(directory: Path):
    _change(directory, lambda tensors: tensors.update({LAYER + "self_attn.q_proj.weight": torch.zeros(32, 64)}))
    with pytest.raises(CheckpointError, match=r"q_proj.weight has shape \(32, 64\), the config asks for \(64, 64\)"):
        load_transformer(directory)


def test_unknown_tensor(directory: Path):
    _change(directory, lambda tensors: tensors.update({LAYER + "self_attn.q_proj.bias": torch.zeros(64)}))
    with pytest.raises(CheckpointError, match=r"q_proj\.bias, which a plain Llama model does not have"):
        load_transformer(directory)


def test_idle_tensors_are_passed_over(directory: Path):
    idle = {"lm_head.weight": torch.zeros(272, 64), LAYER + "self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    _change(directory, lambda tensors: tensors.update(idle))
    load_transformer(directory)


def test_untied_model_needs_its_head(directory: Path):
    config = json.loads((directory / "config.json").read_text()) | {"tie_word_embeddings": False}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"first lm_head\.weight.*tie_word_embeddings"):
        load_transformer(directory)


def test_cut_file(directory: Path):
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_transformer(directory)


def test_missing_directory(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nowhere has no readable config\.json"):
        load_transformer(tmp_path / "nowhere")


def test_missing_weights(directory: Path):
    (directory / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        load_transformer(directory)
    with pytest.raises(CheckpointError, match="neither"):
        weights_digest(directory)


def test_missing_shard_and_shard_outside(directory: Path):
    (directory / WEIGHTS).rename(directory / "a.safetensors")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"lacks shard b\.safetensors"):
        load_transformer(directory)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside its directory"):
        load_transformer(directory)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_transformer(directory)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}'])
def test_bad_config(directory: Path, text: str):
    (directory / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(directory)


def test_unsupported_dtype(directory: Path):
    with pytest.raises(CheckpointError, match=r"dtype is torch\.float16; choose one of torch\.float32"):
        load_transformer(directory, torch.float16)


def test_digest_follows_the_weights(directory: Path, tmp_path: Path):
    digest = weights_digest(directory)
    assert weights_digest(tiny_model_directory(tmp_path / "again")) == digest
    assert weights_digest(tiny_model_directory(tmp_path / "other", seed=1)) != digest
    _change(directory, lambda tensors: tensors[LAYER + "mlp.up_proj.weight"][3, 4].add_(1e-3))
    assert weights_digest(directory) != digest


def test_digest_of_shards(directory: Path):
    whole = weights_digest(directory)
    (directory / WEIGHTS).rename(directory / "a.safetensors")
    (directory / "b.safetensors").write_bytes(b"other")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    digest = weights_digest(directory)
    assert digest != whole
    (directory / "b.safetensors").write_bytes(b"changed")
    assert weights_digest(directory) != digest
