"""Everything that names DVC or git: their files, locks, caches, hashes and configuration."""
