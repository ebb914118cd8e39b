"""Compiles specs to the graph of steps, one module per section."""
