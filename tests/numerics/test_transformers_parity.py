"""Our forward pass gives the logits of Hugging Face transformers on the same model directory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from model.checkpoint import load_transformer
from model.runner import ModelRunner, PrefillItem
from tests.helpers.real_model import real_model_directory, real_transformer
from tests.helpers.tiny_model import random_tokens, tiny_model_directory, tiny_plan

# What transformers gives is the yardstick; its own warnings are not our business.
pytestmark = pytest.mark.filterwarnings("ignore")


def _yardstick(directory: Path, tokens: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float()


def _ours(runner: ModelRunner, tokens: list[int], num_decoded: int) -> torch.Tensor:
    """Logits after the prefill of all but the last `num_decoded` tokens, and after each of those."""
    prompt, rest = tokens[:-num_decoded], tokens[-num_decoded:]
    runner.reset(0, reads_memories=False)
    num_chunks = -(-len(prompt) // runner.plan.query_chunk_tokens)
    logits = [runner.prefill([PrefillItem(0, prompt, [()] * num_chunks)]).logits_BV]
    return torch.cat([*logits, *(runner.decode([0], [token]).logits_BV for token in rest)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied_embeddings": False},
        {"num_kv_heads": 1},
        {"num_kv_heads": 4, "rope_theta": 500_000.0, "rms_norm_eps": 1e-6},
        {"head_dim": 32},
    ],
    ids=lambda changes: ",".join(changes) or "as is",
)
def test_tiny_models(tmp_path: Path, changes: dict[str, Any]):
    directory = tiny_model_directory(tmp_path / "tiny", seed=3, **changes)
    runner = ModelRunner(load_transformer(directory), tiny_plan(), prefix_tokens=(), num_slots=1)
    tokens = random_tokens(90)
    torch.testing.assert_close(_ours(runner, tokens, 6), _yardstick(directory, tokens)[-7:], atol=1e-4, rtol=0)


def test_sharded_directory(tmp_path: Path):
    directory = tiny_model_directory(tmp_path / "tiny")
    tokens = random_tokens(20)
    expected = _yardstick(directory, tokens)
    AutoModelForCausalLM.from_pretrained(directory).save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    runner = ModelRunner(load_transformer(tmp_path / "sharded"), tiny_plan(), prefix_tokens=(), num_slots=1)
    torch.testing.assert_close(_ours(runner, tokens, 1)[-1], expected[-1], atol=1e-4, rtol=0)


def test_weights_stored_as_bfloat16(tmp_path: Path):
    directory = tiny_model_directory(tmp_path / "tiny")
    path = directory / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    runner = ModelRunner(load_transformer(directory), tiny_plan(), prefix_tokens=(), num_slots=1)
    tokens = random_tokens(20)
    torch.testing.assert_close(_ours(runner, tokens, 1)[-1], _yardstick(directory, tokens)[-1], atol=1e-4, rtol=0)


@pytest.mark.weights
def test_smollm2():
    runner = ModelRunner(real_transformer(), tiny_plan(), prefix_tokens=(), num_slots=1, max_context_tokens=256)
    tokens = random_tokens(70)
    expected = _yardstick(real_model_directory(), tokens)
    torch.testing.assert_close(_ours(runner, tokens, 4), expected[-5:], atol=2e-4, rtol=0)


@pytest.mark.weights
def test_smollm2_bfloat16():
    """We are as near to float32 as transformers in bfloat16 is."""
    runner = ModelRunner(
        real_transformer(torch.bfloat16), tiny_plan(), prefix_tokens=(), num_slots=1, max_context_tokens=256
    )
    tokens = random_tokens(70)
    exact = _yardstick(real_model_directory(), tokens)[-5:]
    theirs = _yardstick(real_model_directory(), tokens, torch.bfloat16)[-5:]
    ours = _ours(runner, tokens, 4)
    assert (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()
