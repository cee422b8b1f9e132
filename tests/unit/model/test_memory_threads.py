"""Converting a memory makes no pool of threads: it would slow the thread that decodes (see `_float32`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, threading
import torch
from model.memory.explicit_memory import ExplicitMemory
k = torch.randn(30, 3, 128, 64).bfloat16()
memory = ExplicitMemory(k, k, torch.zeros(30, 3, 128, dtype=torch.uint8), 128)
counts = []
def convert():
    before = len(os.listdir("/proc/self/task"))
    memory.to_arrays()
    counts.append(len(os.listdir("/proc/self/task")) - before)
    if POOL:
        k.float()
        counts.append(len(os.listdir("/proc/self/task")) - before)
torch.set_num_threads(2)
thread = threading.Thread(target=convert)
thread.start()
thread.join()
print(counts)
"""


@pytest.mark.parametrize(("pool", "threads"), [(False, "[0]"), (True, "[0, 1]")], ids=["ours", "the whole at once"])
def test_no_thread_is_made(pool: bool, threads: str) -> None:
    program = PROGRAM.replace("POOL", str(pool))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == threads
