"""What every test needs: no telemetry or settings from the shell, reproducible properties."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("memory3", deadline=None, derandomize=True)
settings.load_profile("memory3")

# A run started in the background inherits an ignored SIGINT and would hand it on to the programs it tests, for which
# ctrl-C then does nothing. A handler of our own is not inherited: they start with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither addresses nor exporters of the person who runs the tests reach them."""
    for name in list(os.environ):
        if name.startswith(("MEMORY3_", "OTEL_")):
            monkeypatch.delenv(name)
