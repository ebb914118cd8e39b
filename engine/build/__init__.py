"""Runs what the plan says, and records it."""
