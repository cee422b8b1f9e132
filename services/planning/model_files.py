"""Models and memory plans by the name a person gives: presets, a model directory's config.json, a plan's JSON file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from model.codec.chain import CodecChain
from model.codec.codebook import CODEBOOK_FILE, Codebook
from model.codec.resolve import codebook_shape, find_codebook
from model.config import ModelConfig
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.presets import model_config, model_config_names, plan_made_for


class ModelFiles:
    """The port `Models` on this machine's files; weights are never read."""

    def __init__(self, codebook: str = "") -> None:
        """`codebook`: file of the codebook for a plan that stores memories by trellis; empty: beside the plan's."""
        self._codebook = codebook

    def config(self, name: str) -> ModelConfig:
        """The shape of a preset or of a model directory. Raises ValueError."""
        if name in model_config_names():
            return model_config(name)
        file = Path(name).expanduser() / "config.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"it holds a {type(values).__name__}, not an object")
            config = ModelConfig.from_hf_json(values)
        except OSError as error:
            raise ValueError(
                f"model {name!r} is neither a preset ({', '.join(model_config_names())}) nor a directory with a "
                f"readable config.json ({error.strerror})"
            ) from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from error
        return replace(config, name=config.name or file.parent.resolve().name)

    def plan(self, name: str | None, config: ModelConfig) -> MemoryPlan:
        """The named memory plan, or the one made for the model; it fits the model. Raises ValueError."""
        plan = plan_made_for(config) if name is None else read_plan(name)
        plan.validate(config)
        return plan

    def record_bytes(self, config: ModelConfig, plan: MemoryPlan, plan_name: str | None) -> int:
        """Size of the record that the plan's codec stores for a full reference. Raises ValueError."""
        chain = CodecChain.from_plan(plan, self._codebook_of(config, plan, plan_name))
        return chain.record_bytes(plan.memory_shape(config), plan.max_reference_tokens)

    def _codebook_of(self, config: ModelConfig, plan: MemoryPlan, plan_name: str | None) -> Codebook | None:
        """The one given, or the one beside the plan's file. Of what it was trained for, weights and prefix are not
        compared: they change no size."""
        folder = Path(plan_name or "").expanduser().parent
        codebook = find_codebook(plan, self._codebook, folder if (folder / CODEBOOK_FILE).is_file() else None)
        if codebook is not None:
            origin = replace(codebook.origin, memory_layers=plan.memory_layers, rope_theta=config.rope_theta)
            codebook.check(origin, codebook_shape(plan, config))
        return codebook
