"""Settings: from the environment, every bad variable at once."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.config import ServerSettings, load


class Settings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="MEMORY3_TEST_", frozen=True)

    limit: int = Field(5, ge=1)
    key: SecretStr = Field(SecretStr(""), max_length=4)

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.limit == 13:
            raise ValueError("limit 13 does not go with this key")
        return self


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_TEST_LIMIT", "7")
    assert load(Settings).limit == 7


def test_all_bad_variables_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY3_TEST_LIMIT", "0")
    monkeypatch.setenv("MEMORY3_TEST_PORT", "many")
    with pytest.raises(SystemExit) as caught:
        load(Settings)
    lines = capsys.readouterr().err
    assert caught.value.code == 2
    assert "MEMORY3_TEST_LIMIT='0'" in lines
    assert "MEMORY3_TEST_PORT='many'" in lines


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MEMORY3_TEST_KEY", "hunter22")
    with pytest.raises(SystemExit):
        load(Settings)
    lines = capsys.readouterr().err
    assert "MEMORY3_TEST_KEY=***" in lines
    assert "hunter22" not in lines


def test_a_contradiction_prints_no_secret_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY3_TEST_KEY", "1234")
    monkeypatch.setenv("MEMORY3_TEST_LIMIT", "13")
    with pytest.raises(SystemExit):
        load(Settings)
    lines = capsys.readouterr().err
    assert "limit 13 does not go" in lines
    assert "1234" not in lines
