"""Shared by the process of every step: job, numerics, progress, exit."""
