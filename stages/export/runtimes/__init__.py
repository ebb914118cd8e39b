"""Programs that run an export, asked as their users ask them; one per file."""
