"""From specs to the graph of steps: one module for each section."""
