"""The report of what was built: one HTML page that needs no network, and the same in Markdown."""
