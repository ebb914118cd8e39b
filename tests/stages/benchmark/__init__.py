"""Tests of the kind benchmark."""
