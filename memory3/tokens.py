"""Tokens and their entries in an access file: a token is shown once, and only its hash is kept.

An access file has one JSON object a line: {"name": "ci", "sha256": "…64 hex digits…", "rights": ["read", "write"]}.
A token holds 256 random bits, so a plain hash of it cannot be guessed back. Knows no file and no wire.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from memory3.rights import Right

PREFIX = "m3_"
"""Of every token, so that scanners for leaked secrets can find one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "rights"}


@dataclass(frozen=True)
class TokenEntry:
    """Who may call, and what."""

    name: str
    """Of the caller, for people and logs."""
    sha256: str
    """Hash of the token, 64 lower-case hex digits."""
    rights: frozenset[Right]

    def to_json(self) -> str:
        """The entry as a line of an access file."""
        rights = [right.value for right in Right if right in self.rights]
        return json.dumps({"name": self.name, "sha256": self.sha256, "rights": rights})


def new_token(name: str, rights: Iterable[Right]) -> tuple[str, TokenEntry]:
    """A fresh token and its entry. Raises ValueError for a name or rights that no entry can have."""
    token = PREFIX + secrets.token_urlsafe(32)
    entry = TokenEntry(name, digest(token), frozenset(rights))
    return token, parse_entry(entry.to_json())


def digest(token: str) -> str:
    """The hash under which a token is known."""
    return hashlib.sha256(token.encode()).hexdigest()


def parse_entry(line: str) -> TokenEntry:
    """The entry in a line of an access file. Raises ValueError that names no value: it might be a token."""
    try:
        fields = json.loads(line)
    except ValueError:
        raise ValueError("is no JSON object") from None
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise ValueError('is no object of "name", "sha256" and "rights"')
    name, sha256, rights = fields["name"], fields["sha256"], fields["rights"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("has a name that is not 1 to 63 characters of letters, digits, '.', '_' and '-'")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(
            "has a sha256 that is not 64 lower-case hex digits; it is the hash of the token, never the token"
        )
    known = {right.value: right for right in Right}
    if (
        not isinstance(rights, list)
        or not rights
        or not all(isinstance(right, str) and right in known for right in rights)
    ):
        raise ValueError(f"has rights that are not some of {', '.join(known)}")
    return TokenEntry(name, sha256, frozenset(known[right] for right in rights))
