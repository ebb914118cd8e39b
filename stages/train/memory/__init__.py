"""Memory and disk space of a training."""
