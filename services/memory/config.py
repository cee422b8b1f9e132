"""Settings of the memory service, read from the environment as MEMORY3_MEMORY_<NAME>."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.config import OptionalFile, ServerSettings, secret

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3_OPTIONS = frozenset({"endpoint", "region", "path_style", "create"})


@dataclass(frozen=True)
class FolderLocation:
    """Records lie below a folder."""

    folder: Path


@dataclass(frozen=True)
class S3Location:
    """Records lie in a bucket."""

    bucket: str
    endpoint: str
    """http(s)://host:port; empty for Amazon's own."""
    region: str
    path_style: bool
    """Bucket in the path of the URL, not in the host's name."""
    create: bool
    """Whether a bucket that is absent is made."""


def parse_store_uri(uri: str) -> FolderLocation | S3Location:
    """Where records lie. Raises ValueError that names what is wrong and what is right."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        return _parse_s3(uri)
    if parts.scheme not in ("", "file") or (parts.scheme == "file" and (parts.netloc or not parts.path)):
        raise ValueError("is neither a path, nor file:///path, nor s3://bucket?endpoint=http://host:port")
    path = unquote(parts.path) if parts.scheme == "file" else uri
    return FolderLocation(Path(path).expanduser().absolute())


def _parse_s3(uri: str) -> S3Location:
    parts = urlsplit(uri)
    if not _BUCKET.fullmatch(parts.netloc) or parts.path.strip("/"):
        raise ValueError(
            "an s3 URI is s3://bucket?endpoint=http://host:port, the bucket of 3 to 63 characters of a-z, 0-9, '.' and "
            "'-', without a path; keys go into MEMORY3_MEMORY_S3_ACCESS_KEY and MEMORY3_MEMORY_S3_SECRET_KEY"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - _S3_OPTIONS:
        raise ValueError(f"options {sorted(unknown)} are unknown; there are {sorted(_S3_OPTIONS)}")
    endpoint = options.get("endpoint", "").rstrip("/")
    if endpoint and not re.fullmatch(r"https?://[^/@?#\s]+", endpoint):
        shown = endpoint.rpartition("@")[2]  # what stands before may be a password
        raise ValueError(f"endpoint {shown!r} is not http(s)://host:port, without user and path")
    return S3Location(
        bucket=parts.netloc,
        endpoint=endpoint,
        region=options.get("region", "us-east-1"),
        path_style=_flag(options, "path_style", default=bool(endpoint)),
        create=_flag(options, "create", default=True),
    )


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise ValueError(f"option {name}={value!r} is neither true nor false")
    return value == "true"


def _default_uri() -> str:
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(data_home) / "memory3" / "memories")


class MemorySettings(ServerSettings):
    """Everything that may vary in the memory service."""

    model_config = SettingsConfigDict(env_prefix="MEMORY3_MEMORY_", frozen=True, extra="ignore")

    port: int = Field(7302, ge=0, le=65535, description="TCP port; 0 takes a free one, printed when ready.")

    store_uri: str = Field(
        default_factory=_default_uri,
        min_length=1,
        description="Where records lie: a path, file:///path, or s3://bucket?endpoint=http://host:port with "
        "the options region (us-east-1), path_style (true with an endpoint) and create (true: make an absent bucket). "
        "Default: memory3/memories below $XDG_DATA_HOME or ~/.local/share.",
    )
    s3_access_key: SecretStr = Field(
        SecretStr(""), description="Access key of the S3 user; empty takes the AWS_* variables or the machine's role."
    )
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the S3 user.")
    s3_access_key_file: OptionalFile = Field(None, description="File with the access key, instead of s3_access_key.")
    s3_secret_key_file: OptionalFile = Field(None, description="File with the secret key, instead of s3_secret_key.")
    s3_ca: OptionalFile = Field(
        None,
        description="Authorities that signed the S3 server's certificate, PEM, trusted beside the system's; "
        "none: the system's.",
    )

    ram_bytes: int = Field(
        256 * 1024 * 1024, ge=0, description="Bytes of records kept in RAM; 0 reads every record from the store."
    )
    max_parallel_reads: int = Field(32, ge=1, le=1024, description="Reads of the store at once, over all calls.")
    max_bytes_in_flight: int = Field(
        256 * 1024 * 1024,
        ge=8 * 1024 * 1024,
        description="Bytes of records being read, stored, or waiting for their receiver; a read counts 3 MiB until its "
        "size is known.",
    )
    queue_timeout_seconds: float = Field(
        2.0, gt=0, description="Longest wait of one record for its turn at the store; then it counts as unavailable."
    )
    read_timeout_seconds: float = Field(
        2.0, gt=0, description="Longest wait for one record of the store; then it counts as unavailable; seconds."
    )
    write_timeout_seconds: float = Field(
        15.0, gt=0, description="Longest wait for the store to take a record, list a page or delete; seconds."
    )
    folder_threads: int = Field(16, ge=1, le=256, description="Threads that read and write a folder.")
    bootstrap_seconds: float = Field(
        600.0, gt=0, description="Job services.memory.bootstrap only: how long it waits for what it needs; seconds."
    )
    breaker_failures: int = Field(
        5, ge=1, description="Failures of the store in a row after which it is not asked for a while."
    )
    breaker_pause_seconds: float = Field(
        0.5, gt=0, description="How long it is not asked; doubled after each failed trial, up to 10 s; seconds."
    )

    @field_validator("store_uri")
    @classmethod
    def _is_a_location(cls, uri: str) -> str:
        # What is wrong is printed with its value, and a URI with keys in it must not be: `location` refuses that one.
        if "@" not in uri:
            parse_store_uri(uri)
        return uri

    @property
    def s3_keys(self) -> tuple[str, str]:
        """Access and secret key of the S3 user, or two empty texts. Raises ValueError, whose message has neither."""
        access = secret(self.s3_access_key, self.s3_access_key_file, "S3_ACCESS_KEY")
        return access, secret(self.s3_secret_key, self.s3_secret_key_file, "S3_SECRET_KEY")

    def problems(self) -> list[str]:
        found = super().problems()
        try:
            access, key = self.s3_keys
            if bool(access) != bool(key):
                found.append("S3_ACCESS_KEY and S3_SECRET_KEY go together; set both, or none")
        except ValueError as error:
            found.append(str(error))
        return [*found, *self._ca_problems()]

    def _ca_problems(self) -> list[str]:
        # Needs cryptography, which a service without certificates of its own does without.
        from services.common.tls import check_authorities  # noqa: PLC0415

        if self.s3_ca is None:
            return []
        try:
            check_authorities(self.s3_ca)
            location = self.location
        except ValueError as error:
            return [f"S3_CA: {error}"]
        if not isinstance(location, S3Location) or location.endpoint.startswith("http://"):
            return ["S3_CA is set, but STORE_URI is not reached by https; leave it out, or say endpoint=https://..."]
        return []

    @property
    def location(self) -> FolderLocation | S3Location:
        """Where records lie. Raises ValueError for a URI with keys in it; its message does not have them."""
        return parse_store_uri(self.store_uri)
