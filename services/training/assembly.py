"""A config -> a model ready to train: weights, adapter, plan, tokenizer, and how the result is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.adapter import AdapterConfig, adapter_plan, base_digest, check_base, read_factors, save_adapter
from model.chat import ChatTemplate
from model.checkpoint import load_transformer, read_config, save_transformer
from model.directory import AUTO, locate_adapter, locate_model
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.token_scorer import TOKEN_SCORER_FILE, find_token_scorer
from model.tokenizer import Tokenizer
from model.training.initial import initial_transformer
from model.training.lora import adapter_factors, add_adapter
from model.transformer import Transformer
from services.training.config import DEFAULT_PLAN, AdapterOptions, ConfigError, TrainingConfig, TrainingSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TOKENIZER_FILES = ("tokenizer.json", "special_tokens.json", "tokenizer_config.json", "generation_config.json")
_CHAT_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class Assembled:
    """What a run trains."""

    transformer: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """None where nothing is asked as in a chat."""
    plan: MemoryPlan
    tokens_per_memory: tuple[int, ...]
    """To draw from."""
    export: Callable[[Path], None]
    """Writes the result into a folder."""
    result: str
    """What the result's folder is called."""


@dataclass(frozen=True)
class ResolvedPlan:
    """What a run writes memories under."""

    plan: MemoryPlan
    """That goes with the result."""
    tokens_per_memory: tuple[int, ...]
    """To draw from."""
    folder: Path
    """Where the token scorer that it names lies."""


def resolve_plan(config: TrainingConfig) -> ResolvedPlan:
    """The plan that the config asks for. Raises ConfigError."""
    try:
        plan, folder = _given_plan(config)
        choices = config.tokens_per_memory or (plan.tokens_per_memory,)
        for choice in choices:
            plan = replace(plan, tokens_per_memory=choice)
        return ResolvedPlan(replace(plan, tokens_per_memory=choices[0]), choices, folder)
    except ValueError as error:
        raise ConfigError(f"plan: {error}") from error


def _given_plan(config: TrainingConfig) -> tuple[MemoryPlan, Path]:
    """As `ResolvedPlan` has them. Raises ValueError (AdapterError)."""
    if config.plan != AUTO:
        return read_plan(config.plan), Path(config.plan).expanduser().parent
    start = locate_adapter(config.adapter.start, config.model) if config.method == "lora" else None
    return (read_plan(DEFAULT_PLAN), Path()) if start is None else (adapter_plan(start), start)


def assemble(config: TrainingConfig, settings: TrainingSettings, device: str) -> Assembled:
    """Load all a run needs. Raises ValueError (CheckpointError, ConfigError) before anything is trained."""
    resolved = resolve_plan(config)
    plan, choices = resolved.plan, resolved.tokens_per_memory
    directory = locate_model(config.model, settings.cache_dir)
    model_config = read_config(directory)
    plan.validate(model_config)
    if plan.token_scorer and config.method != "lora":
        raise ConfigError(
            f"plan {plan.name!r} names a token scorer, which goes with an adapter, but method is {config.method!r}; "
            "take method lora, or a plan with another selection"
        )
    if config.adapter.first_layer >= model_config.num_layers:
        raise ConfigError(
            f"adapter.first_layer is {config.adapter.first_layer}; the model's last layer is "
            f"{model_config.num_layers - 1}"
        )
    tokenizer = Tokenizer.load(directory)
    template = ChatTemplate.load(directory, tokenizer) if config.chat else None
    # A frozen base may be held in bfloat16; weights that are trained stay float32 and are rounded when used.
    dtype = _DTYPES[config.precision] if config.method == "lora" else torch.float32
    if config.from_scratch:
        transformer = initial_transformer(model_config, config.seed, device)
    else:
        transformer = load_transformer(directory, dtype, device)
    transformer.recompute = config.recompute
    transformer.token_scorer = find_token_scorer(plan, model_config, resolved.folder)
    if config.method == "lora":
        export = _adapter_export(config, transformer, plan, directory.name)
        return Assembled(transformer, tokenizer, template, plan, choices, export, "adapter")
    for parameter in transformer.parameters():
        parameter.requires_grad_(True)
    export = _model_export(transformer, plan, directory)
    return Assembled(transformer, tokenizer, template, plan, choices, export, "model")


def _adapter_export(
    config: TrainingConfig, transformer: Transformer, plan: MemoryPlan, base_name: str
) -> Callable[[Path], None]:
    options = config.adapter
    description = AdapterConfig(options.rank, options.alpha, options.targets, base_name, base_digest(transformer))
    add_adapter(
        transformer,
        rank=options.rank,
        alpha=options.alpha,
        targets=options.targets,
        first_layer=options.first_layer,
        seed=config.seed,
    )
    if (start := locate_adapter(options.start, config.model)) is not None:
        _start_from(start, options, transformer)
    dtype = _DTYPES[options.dtype]

    def export(folder: Path) -> None:
        save_adapter(folder, adapter_factors(transformer), description, plan, dtype)
        if transformer.token_scorer is not None:
            transformer.token_scorer.save(folder / TOKEN_SCORER_FILE)

    return export


def _start_from(folder: Path, options: AdapterOptions, transformer: Transformer) -> None:
    """Give the factors the values of an adapter of the same form; those it has not stay new, and change nothing yet.

    Raises ConfigError, AdapterError.
    """
    given = check_base(transformer, folder)
    if (given.rank, given.alpha) != (options.rank, options.alpha):
        raise ConfigError(
            f"adapter.start {folder} has rank {given.rank} and alpha {given.alpha:g}; the config says rank "
            f"{options.rank} and alpha {options.alpha:g}: give both alike"
        )
    ours, theirs = adapter_factors(transformer), read_factors(folder)
    if unknown := theirs.keys() - ours.keys():
        raise ConfigError(
            f"adapter.start {folder} has {min(unknown)}, which the config leaves out; give adapter.targets and "
            "adapter.first_layer so that they hold all it was trained with"
        )
    for module, factors in theirs.items():
        for values, start in zip(ours[module], factors, strict=True):
            values.data.copy_(start)


def _model_export(transformer: Transformer, plan: MemoryPlan, directory: Path) -> Callable[[Path], None]:
    def export(folder: Path) -> None:
        save_transformer(transformer, folder)
        (folder / "memory_plan.json").write_text(plan.to_json() + "\n", encoding="utf-8")
        for name in (*_TOKENIZER_FILES, _CHAT_FILE):
            if (directory / name).is_file():
                shutil.copyfile(directory / name, folder / name)

    return export
