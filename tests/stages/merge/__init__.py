"""Tests of the kind merge."""
