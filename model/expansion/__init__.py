"""Packed memories to keys and values, in torch, on the device that reads them."""
