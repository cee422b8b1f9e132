"""Settings of a codebook's training. The environment of services.quantisation is read here only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class QuantisationSettings(BaseSettings):
    """What may vary beside the command line."""

    model_config = SettingsConfigDict(
        env_prefix="MEMORY3_QUANTISATION_", frozen=True, extra="ignore", env_ignore_empty=True, protected_namespaces=()
    )

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
    plan: str = Field(
        "smollm2-135m", description="Memory plan where no adapter brings one: name of a preset, or path of a JSON file."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format of the model; auto: bfloat16 where the processor has it, else float32."
    )
    device: str = Field("auto", description='Torch device; "auto" takes cuda where there is one, else cpu.')
    torch_threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves torch's default.")
    batch_size: int = Field(20, ge=1, description="References written and read at once.")
