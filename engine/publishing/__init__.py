"""Publishes what a step made, in a folder or on the Hugging Face hub, with everything that is known about it."""
