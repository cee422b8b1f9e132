"""Training of codebooks for the trellis stage: how a model's memories lie, and what it hurts to change in them."""
