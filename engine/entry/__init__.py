"""The top-level package of the wheel, installed as `adapterbuild`, with `engine` and `stages` inside."""
