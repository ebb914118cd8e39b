"""The training loop: batches, steps, validation, checkpoints, stopping."""
