"""What the process of every step shares: its job, its numerics, its progress, its end."""
