"""Small training runs of the tiny model, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from click.testing import CliRunner

from services.training.__main__ import main
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan
from tests.helpers.tree import ROOT

CONFIG = """
model = "{folder}/model"
plan = "{folder}/plan.json"
tokens_per_memory = [4, 6]
steps = {steps}
checkpoint_every = 2
{extra}
[batch]
items = 4
references = 2
accumulation = {accumulation}
[adapter]
rank = 2
dtype = "float32"
[optimizer]
learning_rate = 0.01
warmup_steps = 2
[[sources]]
name = "fiction"
share = 1
items = 40
[modes]
memory = 0.6
wrong = 0.2
rag = 0.1
none = 0.1
[evaluation]
every = 3
items = 2
"""
NOT_COMPARED = ("seconds", "tokens_per_second")


def write_config(folder: Path, *, steps: int = 6, accumulation: int = 1, extra: str = "") -> Path:
    """A config file in `folder`, with its model and plan."""
    if not (folder / "model").exists():
        tiny_model_directory(folder / "model")
        plan = tiny_plan(prefix="<s>", memories_per_chunk=2)
        (folder / "plan.json").write_text(plan.to_json())
    path = folder / "config.toml"
    path.write_text(CONFIG.format(folder=folder, steps=steps, accumulation=accumulation, extra=extra))
    return path


def command(config: Path, out: Path, *more: str, processes: int = 1) -> list[str]:
    """How to start the run."""
    start = ["-m", "services.training"]
    if processes > 1:
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *start]
    return [sys.executable, *start, "--config", str(config), "--out", str(out), *more]


def start(arguments: list[str], **more: str) -> subprocess.Popen[str]:
    """One thread for torch, so that two processes do not fight for the cores. `more`: of the environment."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment | more
    )


def run(arguments: list[str], **more: str) -> str:
    """Start and wait; what it printed. Fails unless it ends well."""
    process = start(arguments, **more)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def run_here(arguments: list[str], *, code: int = 0) -> str:
    """The same run in this process, which is faster; what it printed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = CliRunner().invoke(main, arguments[arguments.index("--config") :])
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == code, result.output
    return result.output


def curves(out: Path) -> list[dict[str, float]]:
    """The lines of curves.jsonl without what differs between equal runs."""
    path = out / "curves.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: value for name, value in line.items() if name not in NOT_COMPARED} for line in lines]
