"""Settings: from the environment, every bad variable at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from memory3.rights import Right
from memory3.tokens import new_token
from services.common.config import ServerSettings, load, secret
from services.memory.config import MemorySettings
from services.retrieval.config import RetrievalSettings
from tests.helpers.certificates import Authority


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


class TestSecurity:
    """TLS and access files are looked at when the process starts; each problem is one line with its variable."""

    @pytest.fixture
    def said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[[dict[str, object]], str]:
        def load_with(values: dict[str, object]) -> str:
            for name, value in values.items():
                monkeypatch.setenv(f"MEMORY3_TEST_{name}", str(value))
            with pytest.raises(SystemExit) as caught:
                load(Settings)
            assert caught.value.code == 2
            return capsys.readouterr().err

        return load_with

    def test_all_of_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        pair = authority.issue("server")
        _, entry = new_token("ci", [Right.READ])
        (tmp_path / "access").write_text(entry.to_json())
        files = {"TLS_CERT": pair.cert, "TLS_KEY": pair.key, "TLS_CLIENT_CA": authority.cert}
        for name, path in {**files, "ACCESS_FILE": tmp_path / "access"}.items():
            monkeypatch.setenv(f"MEMORY3_TEST_{name}", str(path))
        assert load(Settings).tls_cert == pair.cert

    def test_empty_variables_leave_it_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "ACCESS_FILE", "HEALTH_PORT"):
            monkeypatch.setenv(f"MEMORY3_TEST_{name}", "")
        settings = load(Settings)
        assert (settings.tls_cert, settings.access_file, settings.health_port) == (None, None, None)

    def test_half_of_it(self, said: Callable[[dict[str, object]], str], tmp_path: Path) -> None:
        pair = Authority(tmp_path).issue("server")
        assert said({"TLS_CERT": pair.cert}) == "MEMORY3_TEST_TLS_CERT is set without TLS_KEY; set both, or none\n"
        assert "TLS_KEY is set without TLS_CERT" in said({"TLS_CERT": "", "TLS_KEY": pair.key})
        assert "TLS_CLIENT_CA demands" in said({"TLS_KEY": "", "TLS_CLIENT_CA": pair.cert})

    @pytest.mark.parametrize(
        ("days", "fault"),
        [(-1, "expired at .*; renew it"), (1, "is not that of certificate"), (None, "cannot be read")],
    )
    def test_files_that_cannot_serve(
        self, said: Callable[[dict[str, object]], str], tmp_path: Path, days: float | None, fault: str
    ) -> None:
        authority = Authority(tmp_path)
        other = authority.issue("other")
        pair = authority.issue("server", days=days or 1)
        if days is None:
            pair.cert.unlink()
        key = other.key if days == 1 else pair.key
        assert re.search(f"MEMORY3_TEST_TLS_CERT: .*{fault}", said({"TLS_CERT": pair.cert, "TLS_KEY": key}))

    def test_an_encrypted_key_is_refused_and_nobody_is_asked(
        self, said: Callable[[dict[str, object]], str], tmp_path: Path
    ) -> None:
        pair = Authority(tmp_path).issue("server")
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"word"),
            )
        )
        assert "no unencrypted private key" in said({"TLS_CERT": pair.cert, "TLS_KEY": pair.key})

    @pytest.mark.parametrize(
        ("content", "fault"),
        [("", "is empty"), ("m3_hidden", "line 1 is no JSON object"), (None, "cannot be read")],
    )
    def test_an_access_file_that_lets_nobody_in_is_refused_and_not_shown(
        self, said: Callable[[dict[str, object]], str], tmp_path: Path, content: str | None, fault: str
    ) -> None:
        path = tmp_path / "access"
        if content is not None:
            path.write_text(content)
        lines = said({"ACCESS_FILE": path})
        assert f"MEMORY3_TEST_ACCESS_FILE: access file {path}" in lines
        assert fault in lines
        assert "hidden" not in lines


class TestSecretFiles:
    def test_from_the_variable_or_from_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_text("from the file\n")
        assert secret(SecretStr("from the variable"), None, "KEY") == "from the variable"
        assert secret(SecretStr(""), path, "KEY") == "from the file"
        assert secret(SecretStr(""), None, "KEY") == ""

    def test_both_or_an_unreadable_file(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        with pytest.raises(ValueError, match=r"KEY_FILE .*cannot be read"):
            secret(SecretStr(""), path, "KEY")
        path.write_bytes(b"hidden \xff")
        with pytest.raises(ValueError, match="no UTF-8") as caught:
            secret(SecretStr(""), path, "KEY")
        with pytest.raises(ValueError, match="KEY and KEY_FILE are both set") as both:
            secret(SecretStr("hidden"), path, "KEY")
        assert "hidden" not in str(caught.value) + str(both.value)

    def test_the_stores_take_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("access", "secret", "milvus"):
            (tmp_path / name).write_text(f"hidden-{name}\n")
        monkeypatch.setenv("MEMORY3_MEMORY_S3_ACCESS_KEY_FILE", str(tmp_path / "access"))
        monkeypatch.setenv("MEMORY3_MEMORY_S3_SECRET_KEY_FILE", str(tmp_path / "secret"))
        monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_TOKEN_FILE", str(tmp_path / "milvus"))
        memory, retrieval = load(MemorySettings), load(RetrievalSettings)
        assert memory.s3_keys == ("hidden-access", "hidden-secret")
        assert retrieval.milvus_credentials == "hidden-milvus"
        assert "hidden" not in repr(memory) + repr(retrieval)
        (tmp_path / "secret").unlink()
        monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_TOKEN", "hidden")
        for cls, said in ((MemorySettings, "MEMORY3_MEMORY_S3_SECRET_KEY_FILE"), (RetrievalSettings, "are both set")):
            with pytest.raises(SystemExit):
                load(cls)
            lines = capsys.readouterr().err
            assert said in lines
            assert "hidden" not in lines


PRIVATE = (
    (MemorySettings, "MEMORY3_MEMORY_S3_CA", "MEMORY3_MEMORY_STORE_URI", "s3://bucket?endpoint={}://s3:9000"),
    (RetrievalSettings, "MEMORY3_RETRIEVAL_MILVUS_CA", "MEMORY3_RETRIEVAL_MILVUS_URI", "{}://milvus:19530"),
)


@pytest.mark.parametrize(("cls", "ca", "address", "uri"), PRIVATE)
def test_authorities_of_stores_are_looked_at_when_the_process_starts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cls: type[MemorySettings | RetrievalSettings],
    ca: str,
    address: str,
    uri: str,
) -> None:
    good, empty = Authority(tmp_path).cert, tmp_path / "empty.crt"
    empty.write_text("no certificate")
    monkeypatch.setenv(address, uri.format("https"))
    monkeypatch.setenv(ca, str(good))
    load(cls)
    for file, scheme, said in (
        (empty, "https", "holds no certificate"),
        (tmp_path / "absent.crt", "https", "absent.crt"),
        (good, "http", "is not reached by https"),
    ):
        monkeypatch.setenv(address, uri.format(scheme))
        monkeypatch.setenv(ca, str(file))
        with pytest.raises(SystemExit):
            load(cls)
        lines = capsys.readouterr().err
        assert ca in lines
        assert said in lines
