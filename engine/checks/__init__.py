"""Checks of specs and graphs before anything runs, one per module."""
