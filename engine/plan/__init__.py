"""What would run, why, and what it would take."""
