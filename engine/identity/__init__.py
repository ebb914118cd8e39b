"""Identities of steps: code closures, revisions of behaviour, package versions; and the provenance of results."""
