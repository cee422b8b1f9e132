"""Adapters as files: what PEFT reads, what is refused, and what is merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.adapter import (
    AdapterConfig,
    AdapterError,
    adapter_digest,
    adapter_plan,
    base_digest,
    merge_adapter,
    read_factors,
    save_adapter,
)
from model.checkpoint import load_transformer, weight_views
from model.naive import naive_logits
from model.training.lora import TARGETS, adapter_factors, add_adapter
from model.transformer import Transformer
from tests.helpers.tiny_model import random_tokens, tiny_model_directory, tiny_plan, tiny_transformer

RANK, ALPHA = 2, 6.0


def trained_adapter(folder: Path, base: Transformer, targets: tuple[str, ...] = TARGETS, first_layer: int = 0) -> Path:
    """Files of an adapter of `base` with random factors; `base` keeps it."""
    add_adapter(base, rank=RANK, alpha=ALPHA, targets=targets, first_layer=first_layer)
    generator = torch.Generator().manual_seed(3)
    for _, up_OR in adapter_factors(base).values():
        up_OR.data.copy_(0.3 * torch.randn(up_OR.shape, generator=generator))
    folder.mkdir(exist_ok=True)
    config = AdapterConfig(RANK, ALPHA, targets, "tiny", base_digest(base))
    save_adapter(folder, adapter_factors(base), config, tiny_plan())
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return trained_adapter(tmp_path / "adapter", tiny_transformer())


def test_what_is_written_is_read_again(adapter: Path) -> None:
    assert adapter_plan(adapter) == tiny_plan()
    assert len(read_factors(adapter)) == 4 * len(TARGETS)
    assert adapter_digest(adapter) == adapter_digest(adapter)


def test_merging_adds_the_product_of_the_factors(adapter: Path) -> None:
    merged, before = tiny_transformer(), weight_views(tiny_transformer())
    assert merge_adapter(merged, adapter) == adapter_digest(adapter)
    after = weight_views(merged)
    down_RI, up_OR = read_factors(adapter)["layers.2.self_attn.v_proj"]
    name = "model.layers.2.self_attn.v_proj.weight"
    torch.testing.assert_close(after[name], before[name] + up_OR @ down_RI * (ALPHA / RANK))
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_some_projections_of_some_layers(tmp_path: Path) -> None:
    adapter = trained_adapter(tmp_path / "adapter", tiny_transformer(), ("q_proj", "v_proj", "up_proj"), first_layer=2)
    assert sorted({name.split(".")[1] for name in read_factors(adapter)}) == ["2", "3"]
    merged, base = tiny_transformer(), tiny_transformer()
    merge_adapter(merged, adapter)
    changed = {name for name, view in weight_views(merged).items() if not torch.equal(view, weight_views(base)[name])}
    assert changed == {f"model.{name}.weight" for name in read_factors(adapter)}


def test_the_base_is_known_in_either_dtype() -> None:
    assert base_digest(tiny_transformer(dtype=torch.bfloat16)) == base_digest(tiny_transformer())
    assert base_digest(tiny_transformer(seed=1)) != base_digest(tiny_transformer())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_peft_reads_it(tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    directory = tiny_model_directory(tmp_path / "model")
    adapter = trained_adapter(tmp_path / "adapter", load_transformer(directory))
    theirs = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(directory), adapter)
    ours = load_transformer(directory)
    merge_adapter(ours, adapter)
    tokens = random_tokens(7)
    expected_TV = naive_logits(ours, tiny_plan(prefix=""), (), tokens, [()] * 7, reads_memories=False)
    logits_TV = theirs(torch.tensor([tokens])).logits[0].double()
    torch.testing.assert_close(logits_TV, expected_TV, atol=1e-3, rtol=1e-4)


def without_base(folder: Path) -> None:
    (folder / "memory3_adapter.json").unlink()


def test_an_adapter_of_peft_alone_is_taken_on_trust(adapter: Path) -> None:
    without_base(adapter)
    merge_adapter(tiny_transformer(seed=5), adapter)


def test_an_adapter_of_another_base_is_refused_before_anything_changes(adapter: Path) -> None:
    other = tiny_transformer(seed=5)
    with pytest.raises(AdapterError, match="trained on other weights"):
        merge_adapter(other, adapter)
    assert base_digest(other) == base_digest(tiny_transformer(seed=5))


def test_an_adapter_of_another_shape_is_refused_before_anything_changes(adapter: Path) -> None:
    without_base(adapter)
    other = tiny_transformer(mlp_dim=128)
    before = base_digest(other)
    with pytest.raises(AdapterError, match="it is of another model"):
        merge_adapter(other, adapter)
    assert base_digest(other) == before


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"peft_type": "IA3"}, "only 'LORA'"), ({"use_dora": True}, "use_dora True"), ({"r": None}, "cannot be read")],
)
def test_other_kinds_of_adapter_are_refused(adapter: Path, values: dict[str, object], message: str) -> None:
    change(adapter / "adapter_config.json", **values)
    with pytest.raises(AdapterError, match=message):
        merge_adapter(tiny_transformer(), adapter)


def test_damaged_files_are_named(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    lone = {name: tensor for name, tensor in tensors.items() if not name.endswith("layers.1.mlp.up_proj.lora_B.weight")}
    save_file(lone, weights)
    with pytest.raises(AdapterError, match=r"lacks .*layers\.1\.mlp\.up_proj\.lora_B"):
        read_factors(adapter)
    save_file(tensors | {"base_model.model.lm_head.weight": torch.zeros(1)}, weights)
    with pytest.raises(AdapterError, match="lm_head"):
        read_factors(adapter)
    weights.write_bytes(b"rubbish")
    with pytest.raises(AdapterError, match="cannot be read as safetensors"):
        read_factors(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match="is not JSON"):
        merge_adapter(tiny_transformer(), adapter)
    with pytest.raises(AdapterError, match="cannot be read"):
        merge_adapter(tiny_transformer(), adapter / "nowhere")
