"""Settings of the launcher, and what each tier inherits from them. Its environment is read here only."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from memory3.security import ChannelSecurity, SecurityError
from services.common.processor import native_dtype

_SHARED = ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "ACCESS_FILE")
_SHARED_BY_CALLERS = ("TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY", "TLS_SERVER_NAME", "TOKEN_FILE", "TOKEN_PLAIN")
"""MEMORY3_<NAME> is handed to the tiers as MEMORY3_<TIER>_<NAME>; the decoder is the only tier that calls others."""


def tier_security() -> ChannelSecurity:
    """How the launcher asks the tiers whether they serve: by the command line's variables. Raises SecurityError."""
    if os.environ.get("MEMORY3_TLS_CERT") and not os.environ.get("MEMORY3_TLS_CA"):
        raise SecurityError("the tiers will speak TLS (MEMORY3_TLS_CERT); say who signed it: MEMORY3_TLS_CA")
    return replace(ChannelSecurity.from_environment(os.environ), token="", token_file="")


def default_data_dir() -> Path:
    """$XDG_DATA_HOME/memory3, or its usual place below the home folder."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "memory3"


class LaunchSettings(BaseSettings):
    """What may vary on one machine. MEMORY3_SERVE_<NAME> sets <name>; the command line wins."""

    model_config = SettingsConfigDict(env_prefix="MEMORY3_SERVE_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder of the index, the memories, the converted model and logs."
    )
    host: str = Field("127.0.0.1", description="Address the tiers listen on.")
    port_base: int = Field(
        7301, ge=0, le=65533, description="Port of retrieval; memory and decoder take the next two. 0: three free ones."
    )
    backend: Literal["ray", "local"] = Field("ray", description="Where decoder workers run: Ray Serve, or one process.")
    adapter: str = Field("auto", description='Folder of an adapter; "auto": the shipped one; "none".')
    plan: str = Field(
        "", description="Memory plan: preset or JSON file; empty: the adapter's, else the preset smollm2-135m."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the model; auto: bfloat16 where the processor has it, else float32.",
    )
    start_seconds: float = Field(300.0, gt=0, description="How long the tiers may take to get ready; seconds.")
    drain_seconds: float = Field(10.0, ge=0, description="How long running calls may go on when told to stop; seconds.")


@dataclass(frozen=True)
class TierSpec:
    """One child process: `python -m <module>` with `env`, listening on `port`."""

    name: str
    module: str
    port: int
    env: dict[str, str]


def tier_specs(settings: LaunchSettings, ports: tuple[int, int, int]) -> list[TierSpec]:
    """The three tiers on these ports. Where data lies, a variable of the user's own environment wins."""
    data = settings.data_dir.absolute()
    retrieval, memory, decoder = ports
    every = {
        "PYTHONUNBUFFERED": "1",
        "MEMORY3_RETRIEVAL": f"{settings.host}:{retrieval}",
        "MEMORY3_MEMORY": f"{settings.host}:{memory}",
        "MEMORY3_DECODER": f"{settings.host}:{decoder}",
    }
    places = {
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(data / "milvus.db"),
        "MEMORY3_MEMORY_STORE_URI": str(data / "memories"),
        "MEMORY3_DECODER_CACHE_DIR": str(data / "models"),
    }
    inherited = {**places, **os.environ, **every}

    def spec(name: str, port: int, **own: str) -> TierSpec:
        prefix = f"MEMORY3_{name.upper()}_"
        shared = (*_SHARED, *_SHARED_BY_CALLERS) if name == "decoder" else _SHARED
        handed = {prefix + key: os.environ[f"MEMORY3_{key}"] for key in shared if f"MEMORY3_{key}" in os.environ}
        mine = {"HOST": settings.host, "PORT": str(port), "DRAIN_SECONDS": str(settings.drain_seconds), **own}
        env = {**handed, **inherited, **{prefix + key: value for key, value in mine.items()}}
        return TierSpec(name, f"services.{name}", port, env)

    return [
        spec("retrieval", retrieval),
        spec("memory", memory),
        spec(
            "decoder",
            decoder,
            BACKEND=settings.backend,
            ADAPTER=settings.adapter,
            PLAN=settings.plan,
            DTYPE=native_dtype() if settings.dtype == "auto" else settings.dtype,
            RETRIEVAL_ADDRESS=every["MEMORY3_RETRIEVAL"],
            MEMORY_ADDRESS=every["MEMORY3_MEMORY"],
        ),
    ]
