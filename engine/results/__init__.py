"""What was measured: tables of experiments, sweeps, and the choice of a point."""
