"""A checkpoint and its memory plan, measured on question sets in all modes: a job, not a server."""
