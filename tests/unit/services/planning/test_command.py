"""`memory3 plan` as a person meets it: figures, tables, a picture, and what is said of bad input."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from model.codec.chain import CodecChain
from model.codec.codebook import CODEBOOK_FILE, Codebook
from model.directory import SHIPPED_ADAPTER
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.presets import memory_plan, model_config
from services.planning.__main__ import main
from services.planning.report import number, size

PAPER = ("--model", "paper-2.4b", "--references", "1.12e8")


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env, catch_exceptions=False)


def answer(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shipped_plan() -> MemoryPlan:
    return read_plan(str(SHIPPED_ADAPTER / "memory_plan.json"))


class TestThePaper:
    def test_the_figures_it_prints(self) -> None:
        found = answer(*PAPER)
        assert found["references"] == 112_000_000
        assert found["crossover_uses"]["text_rag"] == pytest.approx(0.494, abs=5e-4)
        assert found["crossover_uses"]["explicit_memory"] == pytest.approx(13_400, rel=1e-3)
        assert found["crossover_uses"]["parameters"] is None
        assert found["write_tflop"]["explicit_memory"] == pytest.approx(0.308, abs=5e-4)
        assert found["write_tflop"]["parameters"] == pytest.approx(2.24, abs=5e-3)
        assert found["read_tflop"]["explicit_memory"] == pytest.approx(1.44e-4, abs=5e-7)
        assert found["read_tflop"]["text_rag"] == pytest.approx(0.624, abs=5e-4)
        assert found["bytes_per_memory"]["sparse"] == 440 * 1024
        assert found["bytes_per_memory"]["vq"] == 38.5 * 1024
        assert found["bank_bytes"]["dense"] / 2**50 == pytest.approx(7.17, abs=5e-3)
        assert found["bank_bytes"]["sparse"] / 2**40 == pytest.approx(45.9, abs=5e-2)
        assert found["bank_bytes"]["vq"] / 2**40 == pytest.approx(4.02, abs=5e-3)

    def test_the_tables_fit_a_terminal_and_say_the_same(self) -> None:
        done = run(*PAPER, env={"COLUMNS": "80"})
        assert done.exit_code == 0
        for figure in ("7.17 PiB", "45.9 TiB", "4.02 TiB", "440 KiB", "38.5 KiB", "0.494 to 13,400", "0.624", "2.24"):
            assert figure in done.output
        assert max(map(len, done.output.splitlines())) <= 80
        assert "…" not in done.output

    def test_a_record_is_what_the_codec_really_stores(self) -> None:
        plan, config = memory_plan("paper"), model_config("paper-2.4b")
        shape = (22, config.num_kv_heads, plan.tokens_per_memory, config.head_dim)
        assert answer(*PAPER)["bytes_per_memory"]["record"] == CodecChain.from_plan(plan).record_bytes(shape, 128)


class TestModelsAndPlans:
    def test_a_model_directory(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(model_config("smollm2-135m").to_hf_json()))
        by_preset = answer("--model", "smollm2-135m", "--references", "1000")
        assert answer("--model", str(tmp_path), "--references", "1000") == by_preset

    def test_a_plan_of_ones_own(self, tmp_path: Path) -> None:
        file = tmp_path / "plan.json"
        file.write_text(memory_plan("paper").to_json())
        assert answer(*PAPER, "--plan", str(file)) == answer(*PAPER)
        sixteen = answer(*PAPER, "--tokens-per-memory", "16")
        assert sixteen["bytes_per_memory"]["sparse"] == 880 * 1024
        assert sixteen["plan"]["tokens_per_memory"] == 16

    def test_a_plan_that_names_trellis_takes_the_codebook(self, tmp_path: Path) -> None:
        file = tmp_path / "plan.json"
        plan = replace(shipped_plan(), codec=("trellis",))
        file.write_text(plan.to_json())
        small = ("--model", "smollm2-135m", "--references", "1000", "--plan", str(file))
        given = answer(*small, "--codebook", str(SHIPPED_ADAPTER / CODEBOOK_FILE))
        codebook = Codebook.load(SHIPPED_ADAPTER / CODEBOOK_FILE)
        shape = (15, 6, plan.tokens_per_page, 64)
        assert given["bytes_per_memory"]["record"] == CodecChain.from_plan(plan, codebook).record_bytes(shape, 128)
        (tmp_path / CODEBOOK_FILE).write_bytes((SHIPPED_ADAPTER / CODEBOOK_FILE).read_bytes())
        assert answer(*small) == given

    def test_a_codebook_that_is_missing_or_of_another_shape_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "plan.json"
        plan = shipped_plan()
        file.write_text(replace(plan, codec=("trellis",)).to_json())
        small = ("--model", "smollm2-135m", "--references", "1000", "--plan", str(file))
        done = run(*small)
        assert done.exit_code == 1
        assert "no codebook is given; train one for the model and plan (memory3 quantise)" in done.stderr
        file.write_text(replace(plan.unfitted(), codec=("trellis",), memory_layers=(1, 2)).to_json())
        done = run(*small, "--codebook", str(SHIPPED_ADAPTER / CODEBOOK_FILE))
        assert done.exit_code == 1
        assert (
            "was trained for (layers, KV heads or pages, head dim) (15, 6, 64), the model and plan have (2, 3, 64)"
            in done.stderr
        )

    def test_options_win_over_the_environment(self) -> None:
        env = {"MEMORY3_PLANNING_VQ_BYTES": "16", "MEMORY3_PLANNING_MONTHS": "3"}
        found = json.loads(run(*PAPER, "--vq-bytes", "10", "--json", env=env).stdout)
        assert found["bytes_per_memory"]["vq"] == 28160
        assert found["assumptions"]["months"] == 3


class TestPicture:
    def test_it_is_drawn(self, tmp_path: Path) -> None:
        for file in (tmp_path / "cost.png", tmp_path / "cost.svg"):
            done = run(*PAPER, "--plot", str(file))
            assert f"drawn: {file}" in done.output.replace("\n", "")
            assert file.stat().st_size > 10_000
        assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
        drawn = (tmp_path / "cost.svg").read_text()
        assert "<!-- 13,400 uses -->" in drawn
        assert "<!-- explicit memory -->" in drawn

    def test_a_bank_that_nobody_reads_is_drawn_too(self, tmp_path: Path) -> None:
        file = tmp_path / "cost.svg"
        assert run(*PAPER, "--requests-per-second", "0", "--plot", str(file)).exit_code == 0
        assert "writing never pays" in file.read_text()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("cost.doc", "end the file's name with .png, .svg, .pdf"),
            ("none/cost.png", "cannot write .*No such file.*choose another --plot"),
        ],
    )
    def test_a_file_that_cannot_be(self, tmp_path: Path, name: str, said: str) -> None:
        done = run(*PAPER, "--plot", str(tmp_path / name))
        assert done.exit_code == 1
        assert re.search(said, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--model", "papre", "--references", "5"), 1, "neither a preset (paper-2.4b, smollm2-135m, tiny) nor a"),
        (("--model", "tiny", "--references", "5"), 1, "no memory plan was made for model 'tiny'"),
        (("--model", "tiny", "--plan", "paper", "--references", "5"), 1, "the model has 4 layers (0 to 3)"),
        ((*PAPER, "--plan", "none.json"), 1, "none.json cannot be read (No such file or directory)"),
        ((*PAPER, "--tokens-per-memory", "129"), 1, "tokens_per_memory is 129; give a whole number from 1 to 128"),
        (("--model", "tiny", "--references", "-1"), 2, "'-1' is not a whole number of at least 1"),
        (("--model", "tiny", "--references", "2.5"), 2, "'2.5' is not a whole number"),
        (("--model", "tiny", "--references", "nan"), 2, "'nan' is not a whole number"),
        (("--model", "tiny", "--references", "many"), 2, "'many' is no number; write it as 112000000 or 1.12e8"),
        (("--model", "paper-2.4b", "--references", "1e99"), 1, "1e+99 references are too many"),
        ((*PAPER, "--drive-fill", "1.5", "--copies", "0"), 2, "--drive-fill 1.5: Input should be less than or equal"),
        ((*PAPER, "--gpu-tflops", "inf"), 2, "--gpu-tflops inf: Input should be a finite number"),
        ((*PAPER, "--store", "dense"), 2, "'dense' is not one of 'record', 'sparse'"),
        (("--references", "5"), 2, "Missing option '--model'"),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "config.json: Expecting property name"),
        ("[1]", "config.json: it holds a list, not an object"),
        ('{"num_hidden_layers": 2}', "config.json lacks num_attention_heads"),
        ('{"model_type": "mistral"}', "config.json lacks"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.json").write_text(content)
    done = run("--model", str(tmp_path), "--references", "5", "--json")
    assert done.exit_code == 1
    assert said in json.loads(done.stdout)["error"]
    assert said in done.stderr


def test_a_bad_variable_is_named() -> None:
    done = run(*PAPER, env={"MEMORY3_PLANNING_COPIES": "0"})
    assert done.exit_code == 2
    assert "MEMORY3_PLANNING_COPIES='0': Input should be greater" in done.stderr


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (2**20, "1 MiB"),
        (1.5 * 2**60, "1.5 EiB"),
    ],
)
def test_sizes_for_people(num_bytes: float, said: str) -> None:
    assert size(num_bytes) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.000144179, "0.000144"),
        (13388.36, "13,400"),
        (999.7, "1,000"),
        (-2_000_000, "-2,000,000"),
    ],
)
def test_numbers_for_people(value: float, said: str) -> None:
    assert number(value) == said
    assert math.isclose(float(said.replace(",", "")), value, rel_tol=5e-3)


def test_help_teaches() -> None:
    said = run("--help").output
    assert "memory3 plan --model paper-2.4b --references 1.12e8" in said
    assert "Money" in said
    assert "--drives-per-machine" in said
