"""A spec as a whole: its sections, how it is loaded and located, its schema."""
