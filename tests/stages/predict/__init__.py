"""Tests of the kind predict."""
