"""Tests of the kind initialize."""
