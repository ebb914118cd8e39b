"""The base of all other packages: parts of a spec, located errors, steps and their graph, digests, values cached between runs."""
