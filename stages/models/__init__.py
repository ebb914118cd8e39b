"""Models in folders of this machine: loaded, quantised, saved."""
