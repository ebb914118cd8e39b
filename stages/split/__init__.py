"""split: the rows of a task become train, validation and test, decided by a hash of each row's own content, or by its source."""

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """The shares of the held-out splits."""

    validation: float = recipe(0.05, "Share of the rows (about) held out to watch the training.", ge=0, lt=1)
    test: float = recipe(0.1, "Share of the rows (about) held out to evaluate on.", ge=0, lt=1)
    max_validation: int | None = recipe(None, "At most so many validation rows, chosen by content; the others are used for nothing.", gt=0)
    max_test: int | None = recipe(None, "At most so many test rows, chosen by content; the others are used for nothing.", gt=0)
    fixed: bool = recipe(False, "Whether sources say of rows which split they belong to; shares are then taken from the others only.")
    seed: int = recipe(0, "Another seed gives other splits.", ge=0, lt=2**63)


KIND = Kind("split", "Divide the rows of a task into train, validation and test.", Parameters)
