"""Config files: presets are good, bad ones are refused with the key named."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from services.training import config
from services.training.config import PRESETS, ConfigError, read_config
from tests.helpers.tree import ROOT

SECTIONS = ("batch", "adapter", "optimizer", "sources", "sequences", "modes", "losses", "evaluation")
SMALL = 'steps = 3\n[[sources]]\nname = "fiction"\nshare = 1\n'


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_the_presets_can_be_read(name: str) -> None:
    assert read_config(name).steps > 0


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    read = read_config(str(path))
    assert (read.method, read.batch.items, read.losses.memory_cross_entropy) == ("lora", 4, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3", "either"),
        (SMALL + "[sequences]", "either"),
        ("steps = 3\nfrom_scratch = true\n[sequences]", "from_scratch trains all weights"),
        ('stage = "warmup"\n' + SMALL, "give it"),
        ("stepps = 3\n" + SMALL, "stepps: Extra inputs"),
        (SMALL + "[batch]\nitem = 2", "batch.item: Extra inputs"),
        (SMALL + "[batch]\nitems = 3\naccumulation = 2", "no multiple of batch.accumulation 2"),
        (SMALL.replace("steps = 3", "steps = 0"), "steps: Input should be greater"),
        (SMALL + '[adapter]\ntargets = ["head"]', "targets has head"),
        (SMALL + "[modes]\nmemory = 0\nwrong = 0\nrag = 0\nnone = 0", "all modes have share 0"),
        ('method = "full"\n' + SMALL, "keeps no base"),
        ('steps = 3\nstage = "warmup"\n[sequences]', "'warmup' trains all weights"),
        ("steps = ", "is not TOML"),
    ],
)
def test_a_bad_config_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(str(path))


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="cpu, gpu"):
        read_config("tpu")


def test_every_key_is_described_and_stands_in_the_documentation() -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    sections = [
        cls for _, cls in inspect.getmembers(config, inspect.isclass) if issubclass(cls, config.TrainingConfig.__base__)
    ]
    fields = [(name, field) for cls in sections for name, field in cls.model_fields.items()]
    values = [(name, field) for name, field in fields if name not in SECTIONS]
    assert [name for name, field in values if not field.description] == []
    assert [name for name, _ in values if f"| `{name}` |" not in text] == []
