"""What maintainers run: writers of the files that follow from others (the lock, the reference), and the site's hooks."""
