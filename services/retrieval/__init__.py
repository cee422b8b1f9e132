"""The retrieval tier: text -> vector -> references."""
