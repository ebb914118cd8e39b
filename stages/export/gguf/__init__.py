"""GGUF files: written by llama.cpp's converter, rewritten with other values or types, and read."""
