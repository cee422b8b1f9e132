"""The certificates of a server: read, checked, and renewed while it serves. Knows no service.

gRPC asks for the certificates at each handshake (grpc.dynamic_ssl_server_credentials, which grpc.aio takes too), so a
renewed file serves the next connection, and connections of before go on.
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from memory3.watched_files import WatchedFiles, read_bytes

log = logging.getLogger(__name__)


class ServerCertificates:
    """Certificate and key of this server, and the authorities of its clients, where it demands certificates."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Raises ValueError that names the file, its fault and the remedy."""
        self._paths = (cert, key, client_ca)
        self._files = WatchedFiles([path for path in self._paths if path is not None], self._read)
        self._served = self._files.current()

    def credentials(self) -> grpc.ServerCredentials:
        """What a server's port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._served, self._newer, require_client_authentication=self._paths[2] is not None
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """At each handshake: the certificates if they have changed. Called by gRPC's threads."""
        current = self._files.current()
        if current is self._served:
            return None
        self._served = current
        return current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert, key, client_ca = self._paths
        chain, private = read_bytes(cert, "certificate"), read_bytes(key, "key")
        until = check_pair(cert, chain, key, private)
        roots = None
        if client_ca is not None:
            roots = read_bytes(client_ca, "client CA file")
            _certificates(client_ca, roots)
        log.info("certificate %s is good until %s", cert, until.isoformat(timespec="seconds"))
        return grpc.ssl_server_certificate_configuration([(private, chain)], roots)


def check_pair(cert_path: Path, chain: bytes, key_path: Path, private: bytes) -> datetime.datetime:
    """When the certificate ends. Raises ValueError unless it is good now and the key is its own."""
    cert = _certificates(cert_path, chain)[0]
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = cert.not_valid_before_utc, cert.not_valid_after_utc
    if now >= ends:
        raise ValueError(f"certificate {cert_path} expired at {ends.isoformat()}; renew it")
    if now < begins:
        raise ValueError(f"certificate {cert_path} is good from {begins.isoformat()} on only; wait, or set the clock")
    try:
        key = serialization.load_pem_private_key(private, password=None)
    except (ValueError, TypeError):
        raise ValueError(f"key {key_path} is no unencrypted private key in PEM; name one") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != cert.public_key().public_bytes(*form):
        raise ValueError(f"key {key_path} is not that of certificate {cert_path}; name the two that belong together")
    return ends


def check_authorities(path: Path) -> None:
    """Raises ValueError that names the file and the remedy unless it holds certificates to trust."""
    _certificates(path, read_bytes(path, "CA file"))


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM; name a file that does") from None
