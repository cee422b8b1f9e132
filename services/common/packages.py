"""Where an installed package keeps its files, for packages wanted only for what lies inside them.

Their code is never imported. Knows no format of any file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


class PackageError(Exception):
    """The package is not installed; the message says what to give to pip."""


def folder(package: str, requirement: str) -> Path:
    """The folder of a top-level package by its import name.

    Raises PackageError, with the requirement to install, if there is no such package.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise PackageError(f"package not installed: pip install --no-deps {requirement}")
    return Path(places[0])
