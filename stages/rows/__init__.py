"""Rows and messages: read, written, rendered from templates, split, and cut into words."""
