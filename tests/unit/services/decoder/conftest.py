"""A tiny model with all that belongs to it, and a device that runs it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.engine.engine import Engine
from model.tokenizer import IncrementalDetokenizer
from services.decoder.config import DecoderSettings
from services.decoder.device import Device, EncodeLimits
from services.decoder.encoding import Encoding
from services.decoder.loading import load_model
from services.decoder.model_bundle import ModelBundle
from tests.helpers.tiny_model import BOS, tiny_model_directory, tiny_plan

LIMITS = EncodeLimits(batch_size=4, pause_ns=50_000_000, share=0.5, max_pending=64)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> DecoderSettings:
    """Of a worker with the tiny model; its tiers do not exist."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    (folder / "plan.json").write_text(tiny_plan(preceding_tokens=64).to_json())
    directory = tiny_model_directory(folder / "tiny-model")
    # A random model ends its turn at random; this one goes on until it is told to stop.
    (directory / "special_tokens.json").write_text(json.dumps({"bos": BOS, "eos": []}))
    return DecoderSettings(
        port=0,
        model=str(directory),
        plan=str(folder / "plan.json"),
        max_context_tokens=512,
        num_slots=4,
        torch_threads=1,
    )


@pytest.fixture(scope="session")
def model(settings: DecoderSettings) -> ModelBundle:
    """The loaded tiny model."""
    return load_model(settings)


@pytest.fixture
async def device(model: ModelBundle) -> AsyncIterator[Device]:
    """A running device that nobody listens to."""
    engine = Engine(model.runner, lambda: IncrementalDetokenizer(model.tokenizer), time.monotonic_ns)
    device = Device(engine, model.writer, LIMITS)
    device.start(lambda events: None, lambda error: None)
    yield device
    await device.stop()


@pytest.fixture
def encoding(device: Device, model: ModelBundle) -> Encoding:
    """Encoding on that device."""
    return Encoding(device, model)
