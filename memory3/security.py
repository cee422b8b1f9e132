"""How a caller proves itself to the tiers and checks them: TLS, an own certificate, a token. Knows no tier.

    ChannelSecurity(ca="ca.crt", token_file="caller.token")
    ChannelSecurity.from_environment(os.environ)          # the variables of the command line

The default, PLAIN, is plain text without a token: one machine, one user.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import grpc

from memory3.watched_files import WatchedFiles, read_bytes

SYSTEM: Final = "system"
"""As `ca`: the authorities that this machine trusts."""
AUTHORIZATION: Final = "authorization"
SCHEME: Final = "Bearer "
"""The metadata key of a call's token, and what stands before the token."""

_VARIABLES = {
    "ca": "MEMORY3_TLS_CA",
    "cert": "MEMORY3_TLS_CLIENT_CERT",
    "key": "MEMORY3_TLS_CLIENT_KEY",
    "server_name": "MEMORY3_TLS_SERVER_NAME",
    "token": "MEMORY3_TOKEN",
    "token_file": "MEMORY3_TOKEN_FILE",
}
_TOKEN_PLAIN = "MEMORY3_TOKEN_PLAIN"
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


class SecurityError(ValueError):
    """TLS or a token cannot be used as it is set up; the message says what is wrong and what to do, and no secret."""


@dataclass(frozen=True)
class ChannelSecurity:
    """Files are PEM, and are read again for new connections when they change; "" leaves a thing out."""

    ca: str = ""
    """File of the authorities that signed the servers' certificates, or SYSTEM; "" is plain text."""
    cert: str = ""
    """File of the own certificate with its chain, for servers that demand one; goes with `key`."""
    key: str = ""
    """File of its private key."""
    server_name: str = ""
    """Name the server's certificate must have, where it is not that of the address."""
    token: str = field(default="", repr=False)
    token_file: str = ""
    """File with the token, instead of `token`."""
    token_plain: bool = False
    """Send the token over plain text to other machines too; only where something else encrypts, as a mesh does."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ChannelSecurity:
        """From the MEMORY3_TLS_* and MEMORY3_TOKEN* variables. Raises SecurityError for a flag that is none."""
        flag = environment.get(_TOKEN_PLAIN, "").lower()
        if flag not in _FLAGS:
            raise SecurityError(f"{_TOKEN_PLAIN}={flag!r} is neither true nor false")
        values = {name: environment.get(variable, "") for name, variable in _VARIABLES.items()}
        return cls(**values, token_plain=_FLAGS[flag])

    def with_token_file(self, token_file: str | None) -> ChannelSecurity:
        """The same with another token, read from a file; the same if None is given."""
        return self if token_file is None else replace(self, token="", token_file=token_file)

    def check(self) -> None:
        """Raises SecurityError if the parts contradict each other or a file cannot be used."""
        self.credentials()
        self.token_source()

    def check_target(self, target: str) -> None:
        """Raises SecurityError if a token would go to `target` ("host:port") where others can read it."""
        if (self.token or self.token_file) and not (self.ca or self.token_plain or is_loopback(target)):
            raise SecurityError(
                f"the token would go to {target} as plain text; set TLS_CA, "
                "or TOKEN_PLAIN=true where something else encrypts"
            )

    def credentials(self) -> WatchedFiles[grpc.ChannelCredentials] | None:
        """What a channel connects with; None for plain text. Raises SecurityError."""
        if bool(self.cert) != bool(self.key):
            given, lacking = ("certificate", "key") if self.cert else ("key", "certificate")
            raise SecurityError(
                f"a client {given} ({self.cert or self.key}) without its {lacking}; "
                "set both TLS_CLIENT_CERT and TLS_CLIENT_KEY, or none"
            )
        if not self.ca:
            if self.cert or self.server_name:
                raise SecurityError(
                    f"a client certificate or a server name needs TLS; say whom to trust: TLS_CA=FILE, or {SYSTEM}"
                )
            return None
        paths = [Path(name) for name in (self.ca, self.cert, self.key) if name and name != SYSTEM]
        return WatchedFiles(paths, self._read_credentials)

    def token_source(self) -> Callable[[], str] | None:
        """What gives the token of a call; None without one. Raises SecurityError."""
        if self.token and self.token_file:
            raise SecurityError(f"a token and a token file ({self.token_file}) are given; leave one out")
        if self.token_file:
            path = Path(self.token_file)
            return WatchedFiles([path], lambda: _checked_token(_read(path, "token file"), str(path))).current
        if self.token:
            token = _checked_token(self.token.encode(), _VARIABLES["token"])
            return lambda: token
        return None

    def _read_credentials(self) -> grpc.ChannelCredentials:
        roots = None if self.ca == SYSTEM else _read(Path(self.ca), "CA file")
        if roots is not None:
            try:
                ssl.create_default_context(cadata=roots.decode("ascii"))
            except (ValueError, OSError) as error:
                raise SecurityError(
                    f"CA file {self.ca} holds no certificate in PEM; name the CA's certificate"
                ) from error
        if not self.cert:
            return grpc.ssl_channel_credentials(roots)
        cert, key = _read(Path(self.cert), "client certificate"), _read(Path(self.key), "client key")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(self.cert, self.key, password=_no_password)
        except (ValueError, OSError) as error:
            raise SecurityError(
                f"client certificate {self.cert} and key {self.key} do not belong together or are no PEM "
                "(an encrypted key is not read)"
            ) from error
        return grpc.ssl_channel_credentials(roots, key, cert)


PLAIN: Final = ChannelSecurity()


def is_loopback(target: str) -> bool:
    """Whether "host:port" is this machine, by its look: nothing is resolved."""
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost" or target.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bytes(path, what)
    except ValueError as error:
        raise SecurityError(str(error)) from error


def _checked_token(data: bytes, source: str) -> str:
    """The token without the line's end. Raises SecurityError that does not show it."""
    token = data.strip()
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise SecurityError(
            f"{source} holds no token: one line of printable ASCII is one; memory3 token new makes them"
        )
    return token.decode("ascii")


def _no_password() -> bytes:
    """Instead of asking at the terminal."""
    raise ValueError("encrypted")
