"""The command line of memory3. Knows the typed clients and no service."""

from memory3.cli.app import main

__all__ = ["main"]
