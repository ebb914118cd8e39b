"""How a rule fails."""


class Differs(Exception):
    """The export differs from the trained model; the message says in what, and which row shows it."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint
