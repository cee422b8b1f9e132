"""Invented facts: names that no model has read, in short references like those of an encyclopaedia."""
