"""Memory and disk room that a training takes."""
