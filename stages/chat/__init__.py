"""Chat templates: rendering, splitting into turns, and detection of content that a template drops."""
