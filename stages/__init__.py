"""The executable kinds of steps; a folder is a kind, light on the outside (`__init__`), heavy in `body`."""
