"""A new workspace, and what a workspace stands on."""
