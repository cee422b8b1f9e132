"""Plumbing that every serving process shares; knows no service."""
