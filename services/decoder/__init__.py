"""The decoding tier: prompt -> tokens, reading explicit memories; and the writer that makes them."""
