"""Training runs of the tiny model: their result, exact resumption after a kill, and two processes against one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.adapter import WEIGHTS_FILE, adapter_plan, merge_adapter, read_factors
from model.checkpoint import load_transformer
from model.token_scorer import TOKEN_SCORER_FILE, TokenScorer
from tests.helpers.tiny_model import tiny_plan, tiny_scorer
from tests.helpers.training_runs import command, curves, run, run_here, start, write_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps in one go; its folder lies beside config and model."""
    folder = tmp_path_factory.mktemp("training")
    run_here(command(write_config(folder), folder / "whole"))
    return folder


def test_a_run_leaves_curves_and_an_adapter(finished: Path) -> None:
    out = finished / "whole"
    lines = curves(out)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert all("loss" in line for line in lines[1:])
    measured = [line["step"] for line in lines if "eval/fiction/memory/4" in line]
    assert measured == [0, 3, 6]
    assert {"eval/fiction/none", "eval/fiction/rag", "eval/fiction/wrong/6"} <= set(lines[0])
    assert adapter_plan(out / "adapter").tokens_per_memory == 4
    merge_adapter(load_transformer(finished / "model"), out / "adapter")
    assert (out / "curves.png").stat().st_size > 1000
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))


def test_a_killed_run_goes_on_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    arguments = command(finished / "config.toml", tmp_path / "killed")
    process = start(arguments)
    deadline = time.monotonic() + 120
    while len(curves_if_whole(tmp_path / "killed")) < 4:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    run_here([*arguments, "--resume"])
    assert curves(tmp_path / "killed") == curves(finished / "whole")
    resumed, whole = (read_factors(folder / "adapter") for folder in (tmp_path / "killed", finished / "whole"))
    assert all(torch.equal(a, b) for name in whole for a, b in zip(resumed[name], whole[name], strict=True))


def curves_if_whole(out: Path) -> list[dict[str, float]]:
    """No line while one is just being written."""
    try:
        return curves(out)
    except ValueError:
        return []


def test_stopped_early_it_goes_on_too(finished: Path, tmp_path: Path) -> None:
    arguments = command(finished / "config.toml", tmp_path / "stopped")
    run_here([*arguments, "--steps", "3"])
    assert len(curves(tmp_path / "stopped")) == 4
    assert "holds a run already" in run_here(arguments, code=1)
    run_here([*arguments, "--resume"])
    assert curves(tmp_path / "stopped") == curves(finished / "whole")


def test_batches_built_by_other_processes_are_the_same(finished: Path, tmp_path: Path) -> None:
    run(command(finished / "config.toml", tmp_path / "ahead"), MEMORY3_TRAINING_LOADERS="2")
    assert curves(tmp_path / "ahead") == curves(finished / "whole")


@pytest.mark.slow  # two processes that import torch, and their rendezvous
def test_two_processes_with_accumulation_equal_one(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(finished / "model")
    (tmp_path / "plan.json").symlink_to(finished / "plan.json")
    run(command(write_config(tmp_path, accumulation=2), tmp_path / "two", processes=2))
    two, one = (read_factors(folder / "adapter") for folder in (tmp_path / "two", finished / "whole"))
    for name, (down_RI, up_OR) in one.items():
        torch.testing.assert_close(two[name][0], down_RI, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(two[name][1], up_OR, atol=1e-4, rtol=1e-3)


def test_accumulated_pieces_equal_one_batch(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(finished / "model")
    (tmp_path / "plan.json").symlink_to(finished / "plan.json")
    run_here(command(write_config(tmp_path, accumulation=2), tmp_path / "pieces"))
    pieces, whole = (curves(folder) for folder in (tmp_path / "pieces", finished / "whole"))
    assert [line["loss"] for line in pieces[1:]] == pytest.approx([line["loss"] for line in whole[1:]], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[2]", "[2]"), ""),
        (('name = "fiction"', 'name = "friction"'), "no set 'friction'"),
        (("model = ", "model = 'nowhere' #"), "model directory nowhere has no readable config.json"),
        (("tokens_per_memory = [4, 6]", "tokens_per_memory = [400]"), "tokens_per_memory is 400"),
        (("rank = 2", "rank = 2\nfirst_layer = 4"), "the model's last layer is 3"),
    ],
    ids=["fits", "set", "model", "plan", "layer"],
)
def test_what_cannot_be_is_said_before_any_step(
    finished: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text((finished / "config.toml").read_text().replace(*change))
    output = run_here(command(config, tmp_path / "out", "--dry-run"), code=1 if message else 0)
    assert (message or "6 steps take") in output
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_its_own_config_only(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((finished / "config.toml").read_text().replace("learning_rate = 0.01", "learning_rate = 0.1"))
    assert "was begun with another optimizer" in run_here(command(config, finished / "whole", "--resume"), code=1)


def test_a_run_goes_on_under_its_own_plan_only(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(finished / "model")
    shutil.copyfile(finished / "plan.json", tmp_path / "plan.json")
    arguments = command(write_config(tmp_path), tmp_path / "out")
    run_here([*arguments, "--steps", "1"])
    (tmp_path / "plan.json").write_text(tiny_plan(prefix="<s>", memories_per_chunk=2, memory_layers=(1, 2)).to_json())
    message = run_here([*arguments, "--resume"], code=1)
    assert "was begun under a memory plan with another memory_layers;" in message
    shutil.copyfile(finished / "plan.json", tmp_path / "plan.json")
    run_here([*arguments, "--resume", "--steps", "2"])


def test_a_run_goes_on_from_an_adapter(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    text = (finished / "config.toml").read_text()
    config.write_text(text.replace("rank = 2", f'rank = 2\nstart = "{finished}/whole/adapter"'))
    run_here(command(config, tmp_path / "on"))
    begun, ended = curves(tmp_path / "on")[0], curves(finished / "whole")[-1]
    names = [name for name in begun if name.startswith("eval/")]
    assert names
    assert {name: begun[name] for name in names} == pytest.approx({name: ended[name] for name in names}, abs=1e-4)
    assert begun["eval/fiction/memory/4"] != pytest.approx(
        curves(finished / "whole")[0]["eval/fiction/memory/4"], abs=1e-4
    )


def test_a_run_goes_on_from_an_adapter_of_fewer_layers(finished: Path, tmp_path: Path) -> None:
    start, config = tmp_path / "start", tmp_path / "config.toml"
    shutil.copytree(finished / "whole" / "adapter", start)
    given = {name: value for name, value in load_file(start / WEIGHTS_FILE).items() if ".layers.0." not in name}
    save_file(given, start / WEIGHTS_FILE)
    text = (finished / "config.toml").read_text().replace("learning_rate = 0.01", "learning_rate = 1e-30")
    config.write_text(text.replace("rank = 2", f'rank = 2\nstart = "{start}"'))
    run_here(command(config, tmp_path / "on"))
    written = load_file(tmp_path / "on" / "adapter" / WEIGHTS_FILE)
    assert all(torch.equal(written[name], value) for name, value in given.items())
    new = [value for name, value in written.items() if name not in given and "lora_B" in name]
    assert new
    assert all(value.abs().max() < 1e-20 for value in new)


def test_an_adapter_trained_with_a_token_scorer_keeps_it(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=1)
    scorer = tiny_scorer(load_transformer(tmp_path / "model"))
    plan = tiny_plan(selection="trained", token_scorer=scorer.identity, memories_per_chunk=2)
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert "is no token scorer" in run_here(command(config, tmp_path / "out"), code=1)
    full = tmp_path / "full.toml"
    full.write_text(f'method = "full"\n{config.read_text()}[losses]\nteacher = "self"\n')
    assert "goes with an adapter, but method is 'full'" in run_here(command(full, tmp_path / "out"), code=1)
    scorer.save(tmp_path / TOKEN_SCORER_FILE)
    run_here(command(config, tmp_path / "out"))
    assert adapter_plan(tmp_path / "out" / "adapter").token_scorer == scorer.identity
    assert TokenScorer.load(tmp_path / "out" / "adapter" / TOKEN_SCORER_FILE).identity == scorer.identity


def test_who_goes_on_from_an_adapter_trains_under_its_plan_and_scorer(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=1)
    scorer = tiny_scorer(load_transformer(tmp_path / "model"))
    plan = tiny_plan(selection="trained", token_scorer=scorer.identity, memories_per_chunk=2, tokens_per_memory=4)
    (tmp_path / "plan.json").write_text(plan.to_json())
    scorer.save(tmp_path / TOKEN_SCORER_FILE)
    run_here(command(config, tmp_path / "out"))
    adapter = tmp_path / "out" / "adapter"
    text = config.read_text().replace(f'plan = "{tmp_path}/plan.json"', "")
    config.write_text(text.replace("rank = 2", f'rank = 2\nstart = "{adapter}"'))
    run_here(command(config, tmp_path / "on"))
    assert adapter_plan(tmp_path / "on" / "adapter") == adapter_plan(adapter)
    assert TokenScorer.load(tmp_path / "on" / "adapter" / TOKEN_SCORER_FILE).identity == scorer.identity
    (adapter / "memory_plan.json").unlink()
    assert "memory_plan.json cannot be read" in run_here(command(config, tmp_path / "none"), code=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [("rank = 4", "has rank 2"), ("rank = 2\nfirst_layer = 1", "has layers.0.")],
)
def test_an_adapter_of_another_form_is_refused(finished: Path, tmp_path: Path, change: str, message: str) -> None:
    config = tmp_path / "config.toml"
    text = (finished / "config.toml").read_text()
    config.write_text(text.replace("rank = 2", f'{change}\nstart = "{finished}/whole/adapter"'))
    assert message in run_here(command(config, tmp_path / "out"), code=1)
    assert not (tmp_path / "out").exists()


SEQUENCES = """
model = "{folder}/model"
plan = "{folder}/plan.json"
stage = "{stage}"
method = "full"
from_scratch = true
steps = 4
{extra}
[batch]
items = 2
[optimizer]
learning_rate = 0.003
warmup_steps = 1
[sequences]
tokens = 160
documents = 12
[evaluation]
every = 2
items = 2
"""


@pytest.mark.parametrize(("stage", "extra"), [("warmup", 'precision = "bfloat16"'), ("memory", "recompute = true")])
def test_a_model_is_trained_from_scratch(finished: Path, tmp_path: Path, stage: str, extra: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(SEQUENCES.format(folder=finished, stage=stage, extra=extra))
    run_here(command(config, tmp_path / "out"))
    lines = curves(tmp_path / "out")
    assert lines[-1]["eval/text/none"] < lines[0]["eval/text/none"]
    assert ("nll_reading" in lines[1]) == (stage == "memory")
    load_transformer(tmp_path / "out" / "model")
