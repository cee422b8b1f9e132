"""Settings every server has; each service's config.py adds its own.

The environment is read here and in the services' config.py only. All bad variables are reported at once.
"""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    """What every gRPC server needs."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: int = Field(0, ge=0, le=65535, description="TCP port; 0 takes a free one, printed when ready.")
    max_concurrent_calls: int = Field(256, ge=1, description="Calls served at once; more are refused as overloaded.")
    drain_seconds: float = Field(10.0, ge=0, description="After SIGTERM, how long running calls may go on; seconds.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")


S = TypeVar("S", bound=BaseSettings)


def load(cls: type[S]) -> S:
    """Read the settings from the environment, or end the process with every bad variable named.

    Raises SystemExit (2) with one line for each bad value: variable, value (never a secret's), what is wrong.
    """
    try:
        return cls()
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        for item in error.errors():
            name = prefix + "_".join(str(part) for part in item["loc"]).upper()
            print(f"{name}={_shown(cls, item)}: {item['msg']}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error


def _shown(cls: type[BaseSettings], item: ErrorDetails) -> str:
    """The bad value as text; stars for a secret, and for the whole set when the settings contradict each other."""
    field = cls.model_fields.get(str(item["loc"][0])) if item["loc"] else None
    if field is None or field.annotation is SecretStr:
        return "***"
    return repr(item["input"])
