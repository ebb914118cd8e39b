"""What was built: found, verified, fetched, accepted, compared across commits, and removed."""
