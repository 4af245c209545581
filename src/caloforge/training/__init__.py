"""Training: the loop, weights and checkpoints."""
