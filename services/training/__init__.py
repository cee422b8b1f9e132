"""Training of models and adapters: a job."""
