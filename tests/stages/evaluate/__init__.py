"""Tests of the kind evaluate."""
