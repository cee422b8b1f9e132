"""Every symbol that docs/paper-map.md names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "paper-map.md"
SYMBOLS = sorted(set(re.findall(r"`((?:model|services|bench)\.[\w.]+(?::\w+)?)`", PAGE.read_text())))


def test_the_page_names_symbols() -> None:
    assert len(SYMBOLS) > 15


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_symbol_exists(symbol: str) -> None:
    module, _, name = symbol.partition(":")
    found = importlib.import_module(module)
    assert not name or hasattr(found, name)
