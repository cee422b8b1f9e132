"""The mathematics of training: one graph from references over memories to the loss, adapters, schedule, leak filter."""
