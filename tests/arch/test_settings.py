"""Settings explain themselves: each has a description, and each stands in its service's README by its variable."""

from __future__ import annotations

import importlib
import inspect

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from tests.helpers.tree import JOBS, ROOT, SERVERS

PREFIX = {"launch": "MEMORY3_SERVE_"}


def settings_of(service: str) -> list[type[BaseSettings]]:
    """The settings classes that a service's config.py defines."""
    module = importlib.import_module(f"services.{service}.config")
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseSettings) and cls.__module__ == module.__name__
    ]


def variable(cls: type[BaseSettings], name: str, field: FieldInfo) -> str:
    """The environment variable that sets a field; the first one if there are several."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias) if alias is not None else f"{cls.model_config.get('env_prefix', '')}{name}".upper()


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_every_service_has_frozen_settings_with_its_prefix(service: str) -> None:
    classes = settings_of(service)
    assert classes
    wanted = PREFIX.get(service, f"MEMORY3_{service.upper()}_")
    assert {str(cls.model_config.get("env_prefix", "")) for cls in classes} == {wanted}
    assert all(cls.model_config.get("frozen") for cls in classes)


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_every_setting_is_described_and_stands_in_the_readme(service: str) -> None:
    readme = (ROOT / "services" / service / "README.md").read_text()
    fields = [(cls, name, field) for cls in settings_of(service) for name, field in cls.model_fields.items()]
    assert [name for _, name, field in fields if not field.description] == []
    assert [variable(*item) for item in fields if f"`{variable(*item)}`" not in readme] == []
