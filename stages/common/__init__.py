"""Former names of modules that programs outside of this repository import; they go with version 0.4."""
