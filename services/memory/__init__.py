"""The memory tier: identity -> verified record. It checks records and never looks inside their payload."""
