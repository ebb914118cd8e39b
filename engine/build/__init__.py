"""Runs the plan, and records the runs."""
