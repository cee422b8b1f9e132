"""The example in model/README.md runs, and answers from the memory it writes."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "model" / "README.md"


@pytest.mark.weights
def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code.replace("num_slots=8", "num_slots=1, max_context_tokens=256"), str(README), "exec"), names)
    runner, tokenizer, step = names["runner"], names["tokenizer"], names["step"]
    answer = []
    for _ in range(5):
        token = int(step.logits_BV.argmax())
        answer.append(token)
        step = runner.decode([0], [token])
    assert "843" in tokenizer.decode(answer)
