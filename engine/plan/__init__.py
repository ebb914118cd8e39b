"""The plan: which steps would run, why, and at what cost."""
