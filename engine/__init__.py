"""The light half of adapterbuild: reads specs, compiles the graph, decides and explains what would run; never imports torch."""

__version__ = "0.2.0"
