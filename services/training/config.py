"""What a training run is told: its file, and the few settings of this machine. The environment of services.training is
read here only."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.directory import AUTO, NONE
from model.training.lora import TARGETS

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PLAN = "smollm2-135m"
"""Where neither the config nor an adapter names one."""


class TrainingSettings(BaseSettings):
    """What may vary between machines."""

    model_config = SettingsConfigDict(env_prefix="MEMORY3_TRAINING_", frozen=True, extra="ignore")

    cache_dir: Path = Field(
        Path("~/.cache/memory3"), description="Folder that holds the converted model; ~ is the home directory."
    )
    device: str = Field("auto", description='Torch device; "auto" takes cuda where there is one, else cpu.')
    torch_threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves torch's default.")
    loaders: int = Field(0, ge=0, description="Processes that build the next steps meanwhile; worth it beside a GPU.")


class Section(BaseModel):
    """A part of a config file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AdapterOptions(Section):
    """Of `method = "lora"`."""

    rank: int = Field(default=16, ge=1, description="Rank of every pair of factors.")
    alpha: float = Field(default=32.0, gt=0, description="The update is scaled by alpha / rank.")
    targets: tuple[str, ...] = Field(default=TARGETS, min_length=1, description="Projections that get an adapter.")
    first_layer: int = Field(
        default=0, ge=0, description="Layers below have no adapter, and going back ends here, which saves its time."
    )
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="Of the adapter's files.")
    start: str = Field(
        default=NONE,
        description='Folder of an adapter to go on from, "auto" for the shipped one, "none" for a new one.',
    )


class OptimizerOptions(Section):
    """AdamW and its schedule: a linear rise, a plateau, a linear fall to zero."""

    learning_rate: float = Field(default=1e-3, gt=0, description="On the plateau.")
    warmup_steps: int = Field(default=10, ge=0, description="Steps of the rise.")
    decay_share: float = Field(default=0.2, ge=0, le=1, description="Share of all steps that the fall takes.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's.")
    beta2: float = Field(default=0.98, ge=0, lt=1, description="AdamW's.")
    clip: float = Field(default=1.0, gt=0, description="Longest gradient; a longer one is shortened to it.")


class Source(Section):
    """Where items come from."""

    name: str = Field(
        description='A question set (`python -m services.datasets`); "text": running text to go on with; "recall": '
        "sentences of it to say again."
    )
    share: float = Field(gt=0, description="Of the items of a step, beside the other sources' shares.")
    items: int = Field(default=4000, ge=1, description="Items to draw from; drawn anew for each place of a step.")
    folder: Path | None = Field(
        default=None,
        description="Of text and recall: long documents (.txt, UTF-8), in place of the sets' own short texts.",
    )
    shared: bool = Field(
        default=True,
        description="Whether items drawn together share their references, where `batch.pool` says so; false: each "
        "brings its own, for which a step writes more.",
    )
    near: bool = Field(
        default=False,
        description="Items that share their references are those whose gold references are most alike, so "
        "that memories of similar texts are told apart; false: any of one kind.",
    )


class Modes(Section):
    """Shares of the items by what their context reads. They need not sum to one."""

    memory: float = Field(default=0.8, ge=0, description="Memories of the item's references.")
    wrong: float = Field(default=0.05, ge=0, description="Memories of another item's; taught to do as without any.")
    rag: float = Field(default=0.08, ge=0, description="The references as text.")
    none: float = Field(default=0.07, ge=0, description="Nothing.")

    @model_validator(mode="after")
    def _check(self) -> Modes:
        if not sum(self.model_dump().values()):
            raise ValueError("all modes have share 0; give at least one of memory, wrong, rag, none a share")
        return self


class Losses(Section):
    """Weights of the losses. The teacher of `memory` reads the references as text, that of `wrong` and `none` reads
    nothing, that of `rag` the same text."""

    memory_cross_entropy: float = Field(default=1.0, ge=0, description="Of the answers that read memories.")
    memory_distillation: float = Field(default=0.0, ge=0, description="KL to the teacher for these.")
    other_cross_entropy: float = Field(default=0.0, ge=0, description="Of all other answers.")
    other_distillation: float = Field(default=1.0, ge=0, description="KL to the teacher for these.")
    teacher_reads: Literal["all", "gold"] = Field(
        default="all", description="References that the teacher of `memory` reads; gold: those that hold the answer."
    )
    teacher: Literal["base", "self"] = Field(
        default="base", description="The model without its adapter, or as it is, without gradient."
    )


class BatchOptions(Section):
    """Of one step, over all processes."""

    items: int = Field(default=4, ge=1, description="Items of a step.")
    references: int = Field(default=5, ge=1, description="References of an item.")
    accumulation: int = Field(default=1, ge=1, description="Pieces a step's items are run in, one after the other.")
    pool: int = Field(
        default=1,
        ge=1,
        description="Items of one source and kind that share their references: each reads its own gold one and the "
        "others' as distractors, so a step writes one reference for each item. 1: every item brings its own.",
    )


class SequenceOptions(Section):
    """Running text as the paper trains on it; takes the place of sources, modes and losses."""

    tokens: int = Field(default=512, ge=2, description="Length of a sequence.")
    documents: int = Field(default=4000, ge=1, description="Documents of running text, for sequences and references.")


class EvaluationOptions(Section):
    """The held-out slice that is measured on the way."""

    every: int = Field(default=50, ge=1, description="Steps between two measurements; one more before the first.")
    items: int = Field(default=16, ge=0, description="Items of each set; 0 measures nothing.")
    sets: tuple[str, ...] = Field(default=("fiction",), description="Question sets, of their held-out split.")


class TrainingConfig(Section):
    """A training run, as in its TOML file."""

    model: str = Field(default="package", description='A model directory, or "package": the installed weights package.')
    plan: str = Field(
        default=AUTO,
        description='Memory plan: preset or JSON file; "auto": that of the adapter that `adapter.start` names, else '
        f"{DEFAULT_PLAN}.",
    )
    tokens_per_memory: tuple[int, ...] = Field(
        default=(),
        description="Drawn for each step; the first goes into the result's plan. None: the plan's.",
    )
    stage: Literal["warmup", "memory"] = Field(default="memory", description="Without, or with memories.")
    method: Literal["lora", "full"] = Field(default="lora", description="Train an adapter, or all weights.")
    from_scratch: bool = Field(default=False, description="Random weights in the shape of the model.")
    steps: int = Field(ge=1, description="Steps of the whole run.")
    seed: int = Field(default=7, ge=0, description="Of the factors, the items and their order.")
    precision: Literal["float32", "bfloat16"] = Field(default="float32", description="What is computed in.")
    recompute: bool = Field(default=False, description="Activation checkpointing: less memory, a third more time.")
    checkpoint_every: int = Field(default=25, ge=1, description="Steps between two states kept on disk.")
    batch: BatchOptions = Field(default_factory=BatchOptions)
    adapter: AdapterOptions = Field(default_factory=AdapterOptions)
    optimizer: OptimizerOptions = Field(default_factory=OptimizerOptions)
    chat: float = Field(
        default=0.0, ge=0, le=1, description="Share of the questions that are asked through the model's chat template."
    )
    sources: tuple[Source, ...] = ()
    sequences: SequenceOptions | None = None
    modes: Modes = Field(default_factory=Modes)
    losses: Losses = Field(default_factory=Losses)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        unknown = sorted(set(self.adapter.targets) - set(TARGETS))
        if unknown:
            raise ValueError(f"adapter.targets has {', '.join(unknown)}; choose some of {', '.join(TARGETS)}")
        if bool(self.sources) == (self.sequences is not None):
            raise ValueError("a run has either [[sources]] or [sequences]; give one of them")
        if self.sequences is None and self.stage == "warmup":
            raise ValueError("stage 'warmup' is plain language modelling; give it [sequences]")
        if self.from_scratch and self.method == "lora":
            raise ValueError('from_scratch trains all weights; say method = "full"')
        taught = self.losses.memory_distillation or self.losses.other_distillation
        if self.sources and self.method == "full" and taught and self.losses.teacher == "base":
            raise ValueError(
                "losses.teacher is 'base', but full fine-tuning keeps no base; say teacher = \"self\", or set both "
                "distillation weights to 0"
            )
        if self.batch.items % (self.batch.accumulation * self.batch.pool):
            raise ValueError(
                f"batch.items is {self.batch.items}, no multiple of batch.accumulation {self.batch.accumulation} times "
                f"batch.pool {self.batch.pool}"
            )
        if self.stage == "warmup" and self.method == "lora":
            raise ValueError("stage 'warmup' trains all weights; say method = \"full\"")
        return self


class ConfigError(ValueError):
    """A config file is missing, is no TOML, or asks for what cannot be."""


def read_config(name_or_path: str) -> TrainingConfig:
    """A preset's or a file's config. Raises ConfigError with every bad key."""
    path = Path(name_or_path)
    if not path.suffix:
        path = PRESETS / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.toml")))
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a TOML file or one of {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error


def local_rank() -> int:
    """Which of this machine's processes this is, as torchrun says; 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))
