"""How each format is written, and opened in its runtime."""
