"""Sets up workspaces: creates and checks them, and locks versions of packages."""
