"""Arrays of an explicit memory to bytes and back, without torch. Empty, so that `record` imports without numpy."""
