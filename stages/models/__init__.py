"""Models in local folders: loading, quantisation, saving."""
