"""S3 and Milvus servers whose certificates an authority of one's own signed: real servers behind real TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory3.errors import BackendUnavailableError, Memory3Error
from services.common.config import load
from services.memory.__main__ import make_store
from services.memory.bootstrap import prove
from services.memory.config import MemorySettings
from services.memory.ports import ObjectStore
from services.retrieval.__main__ import make_index
from services.retrieval.config import RetrievalSettings
from services.retrieval.ports import BankIdentity, VectorIndex
from tests.helpers.certificates import Authority
from tests.helpers.milvus_server import milvus_server
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, s3_server
from tests.helpers.tls_proxy import tls_proxy

IDENTITY = BankIdentity("an-embedder", 4)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """The one that signs, and another."""
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder, "ours"), Authority(folder, "theirs")


@pytest.fixture(scope="module")
def s3(authorities: tuple[Authority, Authority]) -> Iterator[str]:
    with s3_server() as server, tls_proxy(server.endpoint[7:], authorities[0].issue("s3"), alpn="http/1.1") as address:
        yield address


@pytest.fixture(scope="module")
def milvus(authorities: tuple[Authority, Authority]) -> Iterator[str]:
    with milvus_server() as server, tls_proxy(server.uri[7:], authorities[0].issue("milvus"), alpn="h2") as address:
        yield address


def store(monkeypatch: pytest.MonkeyPatch, address: str, ca: Path | str = "") -> ObjectStore:
    monkeypatch.setenv("MEMORY3_MEMORY_STORE_URI", f"s3://private?endpoint=https://{address}")
    monkeypatch.setenv("MEMORY3_MEMORY_S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("MEMORY3_MEMORY_S3_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("MEMORY3_MEMORY_S3_CA", str(ca))
    settings = load(MemorySettings)
    return make_store(settings, settings.location)


def index(monkeypatch: pytest.MonkeyPatch, address: str, ca: Path | str = "") -> VectorIndex:
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_URI", f"https://{address}")
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_CA", str(ca))
    return make_index(load(RetrievalSettings))


@pytest.mark.s3
async def test_a_private_s3_server_is_used_with_its_authority(
    s3: str, authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = tmp_path / "both.crt"
    both.write_bytes(authorities[1].cert.read_bytes() + authorities[0].cert.read_bytes())
    for ca in (authorities[0].cert, both):
        await prove(store(monkeypatch, s3, ca))


@pytest.mark.s3
@pytest.mark.parametrize("trusted", ["nobody", "another"])
async def test_without_it_every_call_names_the_setting(
    s3: str, authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    refused = store(monkeypatch, s3, authorities[1].cert if trusted == "another" else "")
    for call in (refused.check(), refused.get("a/b", 10), refused.put_new("a/b", b"x"), refused.stat("a/b")):
        with pytest.raises(BackendUnavailableError) as caught:
            await call
        assert f"https://{s3} is not reached by TLS" in str(caught.value)
        assert "MEMORY3_MEMORY_S3_CA" in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.milvus
async def test_a_private_milvus_is_used_with_its_authority(
    milvus: str, authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = index(monkeypatch, milvus, authorities[0].cert)
    try:
        await used.check()
        assert await used.create("private", IDENTITY) == IDENTITY
    finally:
        await used.close()


@pytest.mark.milvus
@pytest.mark.parametrize("trusted", ["nobody", "another"])
async def test_without_it_a_milvus_that_cannot_be_trusted_names_the_setting(
    milvus: str, authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    refused = index(monkeypatch, milvus, authorities[1].cert if trusted == "another" else "")
    try:
        with pytest.raises(BackendUnavailableError, match=r"unable to get local issuer.*MEMORY3_RETRIEVAL_MILVUS_CA"):
            await refused.check()
    finally:
        await refused.close()


@pytest.mark.s3
async def test_a_certificate_of_another_name_is_refused(
    authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authorities[0].issue("elsewhere", host="elsewhere.example")
    with s3_server() as server, tls_proxy(server.endpoint[7:], pair, alpn="http/1.1") as address:
        refused = store(monkeypatch, address, authorities[0].cert)
        for call in (refused.check(), refused.get("a/b", 10)):
            with pytest.raises(Memory3Error, match=r"is not reached by TLS.*good for that name"):
                await call
