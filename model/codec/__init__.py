"""An explicit memory's arrays to bytes, and records opened again; no torch. Empty, so that `record` needs no numpy."""
