"""Kinds of steps, one folder each: `__init__` declares the parameters without heavy imports, `body` does the work."""
