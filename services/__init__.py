"""The processes: each turns contracts into calls on model, memory3 and a backend."""
