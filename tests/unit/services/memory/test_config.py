"""Store URIs, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.memory.config import FolderLocation, MemorySettings, S3Location, parse_store_uri


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("/data/memories", FolderLocation(Path("/data/memories"))),
        ("file:///data/my%20memories", FolderLocation(Path("/data/my memories"))),
        ("memories", FolderLocation(Path.cwd() / "memories")),
        ("~/memories", FolderLocation(Path.home() / "memories")),
        ("s3://bucket", S3Location("bucket", "", "us-east-1", path_style=False, create=True)),
        (
            "s3://bucket?endpoint=http://127.0.0.1:9000/",
            S3Location("bucket", "http://127.0.0.1:9000", "us-east-1", path_style=True, create=True),
        ),
        (
            "s3://a.b?endpoint=https://s3.example&region=eu-1&path_style=false&create=false",
            S3Location("a.b", "https://s3.example", "eu-1", path_style=False, create=False),
        ),
    ],
)
def test_store_uris(uri: str, location: FolderLocation | S3Location) -> None:
    assert parse_store_uri(uri) == location


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/x",
        "file://host/x",
        "file:",
        "s3://",
        "s3://ab",
        "s3://UPPER",
        "s3://bucket/prefix",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://user:secret@host",
        "s3://bucket?path_style=yes",
        "s3://bucket?zone=1",
        "s3://key:secret@bucket",
    ],
)
def test_bad_uris_are_refused_with_a_reason(uri: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_store_uri(uri)
    assert "endpoint" in str(caught.value) or "option" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_keys_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_MEMORY_S3_SECRET_KEY", "very secret")
    settings = MemorySettings()
    assert "very secret" not in repr(settings)
    assert settings.s3_secret_key.get_secret_value() == "very secret"


def test_keys_in_the_uri_are_refused_without_being_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_MEMORY_STORE_URI", "s3://key:very-secret@bucket")
    with pytest.raises(ValueError) as caught:
        _ = MemorySettings().location
    assert "very-secret" not in str(caught.value)
