"""Why TLS with a server fails: gRPC does not tell. Makes a handshake of its own and sends nothing. Knows no Milvus."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

_SECONDS = 1.0


def refused_certificate(uri: str, ca: Path | None) -> str:
    """What is wrong with the certificate of the server at `uri`; empty if nothing is, or it speaks no TLS."""
    parts = urlsplit(uri)
    if parts.scheme != "https" or parts.hostname is None:
        return ""
    context = ssl.create_default_context(cafile=ca)
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return ""
