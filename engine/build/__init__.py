"""Builds: what the plan says is run, on this machine, and recorded."""
