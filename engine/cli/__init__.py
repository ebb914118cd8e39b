"""The verbs of `engine`, and how their answers look in a terminal."""
