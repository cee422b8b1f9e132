"""Explicit memories: writing, sparsifying and reading them."""
