"""Rows and messages: reading, writing, templates, splits, word segmentation."""
