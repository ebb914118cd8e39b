"""Specs: their sections, loading with source locations, problems, and the JSON Schema."""
