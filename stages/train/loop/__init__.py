"""The training loop: batches, steps, validation, checkpoints, and when it ends."""
