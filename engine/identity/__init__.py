"""What makes a step the same step: code, revisions of behaviour, versions of packages, and the statement of what was built."""
