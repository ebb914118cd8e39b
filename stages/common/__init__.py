"""What the bodies of several kinds share."""
