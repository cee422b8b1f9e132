"""Training of a codebook for a model, its adapter and its memory plan: a job, not a server."""
