"""Settings of the decoding tier. The environment of this service is read here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.config import CallerSettings, ServerSettings


class DecoderSettings(ServerSettings, CallerSettings):
    """MEMORY3_DECODER_<NAME> sets <name>; services/decoder/README.md lists them all."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix="MEMORY3_DECODER_", protected_namespaces=()
    )

    port: int = Field(7303, ge=0, le=65535, description="TCP port; 0 takes a free one, printed when ready.")
    backend: Literal["local", "ray"] = Field(
        "local", description="Where workers run: in this process, or as Ray Serve replicas."
    )

    model: str = Field(
        "package",
        description='A model directory, or "package": the installed weights package, converted once into cache_dir.',
    )
    cache_dir: Path = Field(
        Path("~/.cache/memory3"), description="Folder that holds the converted model; ~ is the home directory."
    )
    adapter: str = Field(
        "auto",
        description='Folder of an adapter to merge into the model; "auto": the shipped one, for the weights package it '
        'was trained for; "none".',
    )
    codebook: str = Field(
        "",
        description="Codebook file of the codec trellis; empty: codebook.safetensors in the adapter's folder.",
    )
    plan: str = Field(
        "", description="Memory plan: preset or JSON file; empty: the adapter's, else the preset smollm2-135m."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of weights and cache.")
    device: str = Field("auto", description='Torch device; "auto" takes cuda where there is one, else cpu.')
    torch_threads: int = Field(0, ge=0, description="CPU threads of one worker's torch; 0 leaves torch's default.")

    num_slots: int = Field(8, ge=1, description="Sequences one worker decodes at once.")
    max_waiting: int = Field(
        32, ge=0, description="Sequences that may wait for a slot of one worker; more are refused."
    )
    max_context_tokens: int = Field(
        0, ge=0, description="Context tokens of one sequence, prompt and output; 0 takes the model's limit."
    )
    prefill_tokens_per_step: int = Field(
        512, ge=64, description="Prompt tokens run between two decode steps; a multiple of the plan's query chunk."
    )

    text_events_per_second: float = Field(
        300, gt=0, description="Text messages of one worker at most, over all generations; tokens are merged meanwhile."
    )

    retrieval_address: str = Field("127.0.0.1:7301", description="host:port of the retrieval tier.")
    memory_address: str = Field(
        "127.0.0.1:7302",
        description="host:port of the memory tier; rendezvous:host:port shares keys out over all addresses of host.",
    )
    recall_deadline_ms: int = Field(
        1500,
        ge=0,
        description="How long one recall may hold a generation up, milliseconds; a request may say less or more.",
    )
    recall_ahead_tokens: int = Field(
        8, ge=0, description="Tokens before a boundary at which the next recall starts, so that it overlaps decoding."
    )
    tier_slow_ms: int = Field(
        1000, ge=1, description="A tier that does not answer for this long is taken as down until a probe answers; ms."
    )
    fetch_timeout_ms: int = Field(
        10_000, ge=1, description="How long a fetch goes on after its recall gave up, to fill the cache; milliseconds."
    )
    cache_bytes: int = Field(
        512 * 1024 * 1024, ge=0, description="RAM of one worker for memories, packed as they are stored; bytes."
    )

    cold_start: bool = Field(True, description="Write a missing memory when it is first recalled.")
    cold_start_per_recall: int = Field(10, ge=0, description="Missing memories written for one recall at most.")
    write_batch_size: int = Field(4, ge=1, description="References encoded in one batch at most.")
    write_pause_ms: int = Field(
        100,
        ge=1,
        description="While somebody decodes, batches are cut so that one takes about this long; milliseconds.",
    )
    write_share: float = Field(
        0.5, gt=0, le=1, description="Share of the device's time that writing may take while somebody decodes; 0 to 1."
    )
    max_pending_writes: int = Field(512, ge=64, description="References that may wait to be encoded; more are refused.")
    put_parallelism: int = Field(8, ge=1, description="Records put at the same time.")

    ray_address: str = Field(
        "", description='Ray cluster to join ("auto", host:port); empty starts one on this machine.'
    )
    ray_deploy: bool = Field(
        True,
        description="Deploy the workers in the cluster that was joined; false waits for those somebody else deploys "
        "there (KubeRay, from services.decoder.app:build).",
    )
    ray_num_cpus: float = Field(0, ge=0, description="CPUs the started Ray may use; 0 counts those of the machine.")
    ray_object_store_bytes: int = Field(
        100 * 1024 * 1024,
        ge=80_000_000,
        description="Object store of the started Ray; bytes. Nothing large crosses it.",
    )
    num_cpus: float = Field(1, ge=0, description="CPUs Ray reserves for one worker.")
    num_gpus: float = Field(0, ge=0, description="GPUs Ray reserves for one worker; may be a fraction.")
    replicas: int = Field(1, ge=1, description="Workers, where autoscaling is off.")
    autoscaling_max: int = Field(0, ge=0, description="Workers at most; 0 turns autoscaling off.")
    autoscaling_min: int = Field(1, ge=0, description="Workers at least, with autoscaling.")
    autoscaling_target: float = Field(
        6, gt=0, description="Generations under way that one worker should have, with autoscaling."
    )
    replica_drain_seconds: float = Field(5, ge=0, description="How long a worker that goes away may finish; seconds.")

    @model_validator(mode="after")
    def _check_autoscaling(self) -> DecoderSettings:
        if self.autoscaling_max and self.autoscaling_max < self.autoscaling_min:
            raise ValueError(
                f"autoscaling_max is {self.autoscaling_max}, below autoscaling_min {self.autoscaling_min}; raise it"
            )
        return self

    @property
    def max_workers(self) -> int:
        """Workers there can be at once."""
        if self.backend == "local":
            return 1
        return self.autoscaling_max or self.replicas

    @property
    def max_generations_per_worker(self) -> int:
        """Generations one worker has at once, running or waiting."""
        return self.num_slots + self.max_waiting


def keep_ray_quiet() -> None:
    """Ray reads its own switches from the environment of the process that starts it: no usage statistics leave."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
