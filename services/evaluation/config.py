"""Settings of an evaluation run. The environment of services.evaluation is read here only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from memory3.security import ChannelSecurity


def default_data_dir() -> Path:
    """$XDG_DATA_HOME/memory3/evaluation, or its usual place below the home folder."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "memory3" / "evaluation"


def tier_security(token_file: str | None) -> ChannelSecurity:
    """How the retrieval tier is called: by the command line's variables, MEMORY3_TLS_* and MEMORY3_TOKEN*.

    A token file of the command line goes before them. Raises SecurityError.
    """
    return ChannelSecurity.from_environment(os.environ).with_token_file(token_file)


def child_environment() -> dict[str, str]:
    """What programs that we start inherit: no certificates and tokens, a tier of our own is alone on loopback."""
    secured = ("MEMORY3_TLS_", "MEMORY3_TOKEN", "MEMORY3_RETRIEVAL_TLS_", "MEMORY3_RETRIEVAL_TOKEN")
    return {name: value for name, value in os.environ.items() if not name.startswith(secured)}


class EvaluationSettings(BaseSettings):
    """What may vary between evaluations beside the command line."""

    model_config = SettingsConfigDict(
        env_prefix="MEMORY3_EVALUATION_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        protected_namespaces=(),
    )

    retrieval: str = Field(
        "127.0.0.1:7301",
        validation_alias=AliasChoices("MEMORY3_RETRIEVAL", "MEMORY3_EVALUATION_RETRIEVAL"),
        description="host:port of the retrieval tier, for sets with real retrieval; `start`: one of our own. Also "
        "MEMORY3_EVALUATION_RETRIEVAL.",
    )
    retrieve_seconds: float = Field(120.0, gt=0, description="Deadline of one retrieve; seconds.")
    start_seconds: float = Field(300.0, gt=0, description="How long a retrieval tier of our own may take to start; s.")
    model: str = Field(
        "package",
        description='A model directory, or "package": the installed weights package, converted once into cache_dir.',
    )
    adapter: str = Field(
        "auto",
        description='Folder of an adapter to merge into the model; "auto": the shipped one, for the weights package it '
        'was trained for; "none".',
    )
    cache_dir: Path = Field(
        Path("~/.cache/memory3"), description="Folder that holds the converted model; ~ is the home directory."
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder of filtered questions, and of the index of a retrieval tier of our own.",
    )
    codebook: str = Field(
        "",
        description="Codebook file of the codec trellis; empty: codebook.safetensors in the adapter's folder.",
    )
    plan: str = Field(
        "smollm2-135m", description="Memory plan where no adapter brings one: name of a preset, or path of a JSON file."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the model; auto: bfloat16 where the processor has it, else float32, as serving.",
    )
    device: str = Field("auto", description='Torch device; "auto" takes cuda where there is one, else cpu.')
    torch_threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves torch's default.")
    num_slots: int = Field(16, ge=1, description="Contexts that run at once.")
    tokens_per_step: int = Field(2048, ge=64, description="Tokens of all contexts that one step runs at most.")
    memory_bytes: int = Field(
        1024 * 1024 * 1024, ge=0, description="RAM for memories that later items may read again; bytes."
    )
