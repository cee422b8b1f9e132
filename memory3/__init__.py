"""Clients, types, errors and the command line of memory3."""
