"""An address where nobody listens."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def unused_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
