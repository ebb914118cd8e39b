"""Executors run the steps of a build: on this machine, or as jobs of a cluster's scheduler."""
