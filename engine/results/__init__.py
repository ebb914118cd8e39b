"""Results: tables of experiments and sweeps, and the choice of a sweep's best point."""
