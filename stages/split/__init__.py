"""split: the rows of a task become train, validation and test, decided by a hash of each row's own content."""

from engine.part import Kind, Part, recipe


class Parameters(Part):
    """The shares of the held-out splits."""

    validation: float = recipe(0.05, "Share of the rows (about) held out to watch the training.", ge=0, lt=1)
    test: float = recipe(0.1, "Share of the rows (about) held out to evaluate on.", ge=0, lt=1)
    seed: int = recipe(0, "Another seed gives other splits.", ge=0, lt=2**63)


KIND = Kind("split", "Divide the rows of a task into train, validation and test.", Parameters)
