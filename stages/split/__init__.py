"""split: divide the rows of a task into train, validation and test, by a hash of each row's group, or as its source assigns."""

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """The shares of the held-out splits."""

    validation: float = recipe(0.05, "Approximate share of the rows in the validation split.", ge=0, lt=1)
    test: float = recipe(0.1, "Approximate share of the rows in the test split.", ge=0, lt=1)
    max_validation: int | None = recipe(None, "Maximum number of validation rows, chosen by content; the others are not used.", gt=0)
    max_test: int | None = recipe(None, "Maximum number of test rows, chosen by content; the others are not used.", gt=0)
    fixed: bool = recipe(False, "Whether sources assign rows to splits; shares then apply to the other rows only.")
    seed: int = recipe(0, "Seed of the splits.", ge=0, lt=2**63)


KIND = Kind("split", "Divide the rows of a task into train, validation and test.", Parameters)
