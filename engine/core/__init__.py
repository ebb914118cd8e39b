"""What every other room stands on: parts of a spec, located errors, steps and their graph, digests, what is remembered between runs."""
