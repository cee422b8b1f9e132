"""What each choice of a memory plan is worth: one axis at a time around a default plan."""
