"""Tests of the kind train."""
