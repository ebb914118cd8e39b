"""Chat templates: rendered, split into turns, checked for what they leave out."""
