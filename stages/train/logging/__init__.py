"""Live output of a training."""
