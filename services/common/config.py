"""Settings every server has; each service's config.py adds its own.

The environment is read here and in the services' config.py only. All bad variables are reported at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from memory3.security import ChannelSecurity
from memory3.watched_files import read_bytes

OptionalFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A file that may be left out; an empty variable leaves it out too."""


class CheckedSettings(BaseSettings):
    """Settings that name files, which are looked at once, when the process starts."""

    def problems(self) -> list[str]:
        """What is wrong with them and the files they name, one line each, without the prefix of the variables."""
        return []


class ServerSettings(CheckedSettings):
    """What every gRPC server needs."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: int = Field(0, ge=0, le=65535, description="TCP port; 0 takes a free one, printed when ready.")
    max_concurrent_calls: int = Field(256, ge=1, description="Calls served at once; more are refused as overloaded.")
    drain_seconds: float = Field(10.0, ge=0, description="After SIGTERM, how long running calls may go on; seconds.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    tls_cert: OptionalFile = Field(
        None, description="Certificate of this server with its chain, PEM; with it the port speaks TLS only."
    )
    tls_key: OptionalFile = Field(None, description="Private key of the certificate, PEM, not encrypted.")
    tls_client_ca: OptionalFile = Field(
        None, description="Authorities whose client certificates are demanded, PEM (mTLS); none: no client needs one."
    )
    access_file: OptionalFile = Field(
        None, description="Who may call, by token (`memory3 token new` makes its lines); none: everybody."
    )
    health_port: Annotated[int | None, BeforeValidator(lambda value: None if value == "" else value)] = Field(
        None,
        ge=0,
        le=65535,
        description="Second port, for health checks alone and always plain text: probes of Kubernetes speak no TLS. "
        "0 takes a free one, printed when ready; none: no such port.",
    )

    def problems(self) -> list[str]:
        # The checks need cryptography, which a process that only calls does without.
        from services.common.access import read_entries  # noqa: PLC0415
        from services.common.tls import ServerCertificates  # noqa: PLC0415

        found = super().problems()
        try:
            if self.tls_cert and self.tls_key:
                ServerCertificates(self.tls_cert, self.tls_key, self.tls_client_ca)
            elif self.tls_cert or self.tls_key:
                given, lacking = ("TLS_CERT", "TLS_KEY") if self.tls_cert else ("TLS_KEY", "TLS_CERT")
                found.append(f"{given} is set without {lacking}; set both, or none")
            elif self.tls_client_ca:
                found.append("TLS_CLIENT_CA demands client certificates, which needs TLS; set TLS_CERT and TLS_KEY too")
        except ValueError as error:
            found.append(f"TLS_CERT: {error}")
        try:
            if self.access_file:
                read_entries(self.access_file)
        except ValueError as error:
            found.append(f"ACCESS_FILE: {error}")
        return found


class CallerSettings(CheckedSettings):
    """What a server needs that calls other tiers; the words are those of the command line (memory3.security)."""

    tls_ca: str = Field(
        "",
        description='Authorities that signed the certificates of the tiers it calls, PEM, or "system"; '
        "empty: plain text.",
    )
    tls_client_cert: str = Field(
        "", description="Own certificate for tiers that demand one, PEM; may be the same file as tls_cert."
    )
    tls_client_key: str = Field("", description="Private key of that certificate, PEM.")
    tls_server_name: str = Field(
        "", description="Name that the tiers' certificates must have, where it is not that of the address."
    )
    token_file: str = Field("", description="File with the token that it sends to the tiers; it needs read and write.")
    token_plain: bool = Field(
        False, description="Send it over plain text to other machines too; only where a mesh encrypts."
    )

    @property
    def security(self) -> ChannelSecurity:
        """For the clients of this process."""
        return ChannelSecurity(
            ca=self.tls_ca,
            cert=self.tls_client_cert,
            key=self.tls_client_key,
            server_name=self.tls_server_name,
            token_file=self.token_file,
            token_plain=self.token_plain,
        )

    def problems(self) -> list[str]:
        found = super().problems()
        try:
            self.security.check()
        except ValueError as error:
            found.append(f"TLS_CA or TOKEN_FILE: {error}")
        return found


S = TypeVar("S", bound=BaseSettings)


def load(cls: type[S]) -> S:
    """Read the settings from the environment, or end the process with every bad variable named.

    Raises SystemExit (2) with one line for each bad value: variable, value (never a secret's), what is wrong.
    """
    prefix = str(cls.model_config.get("env_prefix", ""))
    try:
        settings = cls()
    except ValidationError as error:
        for item in error.errors():
            name = prefix + "_".join(str(part) for part in item["loc"]).upper()
            print(f"{name}={_shown(cls, item)}: {item['msg']}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
    problems = settings.problems() if isinstance(settings, CheckedSettings) else []
    for problem in problems:
        print(f"{prefix}{problem}", file=sys.stderr)  # noqa: T201
    if problems:
        raise SystemExit(2)
    return settings


def secret(value: SecretStr, file: Path | None, name: str) -> str:
    """A secret from its variable, or from the file that a second variable names (a mounted secret).

    Raises ValueError if both are set or the file cannot be read; its message shows no secret.
    """
    if file is None:
        return value.get_secret_value()
    if value.get_secret_value():
        raise ValueError(f"{name} and {name}_FILE are both set; leave one out")
    try:
        return read_bytes(file, f"{name}_FILE").decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{name}_FILE {file} is no UTF-8 text; put the secret alone into it") from None


def _shown(cls: type[BaseSettings], item: ErrorDetails) -> str:
    """The bad value as text; stars for a secret, and for the whole set when the settings contradict each other."""
    field = cls.model_fields.get(str(item["loc"][0])) if item["loc"] else None
    if field is None or field.annotation is SecretStr:
        return "***"
    return repr(item["input"])
