"""What is refused before anything runs: one module for each question."""
