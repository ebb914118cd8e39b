"""Steps as sealed jobs that a worker on any machine runs, with the content-addressed store as the only place where both meet."""
