"""The positions of keys and values in a TOML text that tomllib has already accepted."""

import tomllib
from dataclasses import dataclass

Key = tuple[str | int, ...]
"""A path into a document: table keys and array indices."""

_BLANK = " \t"
_BARE_KEY_END = _BLANK + ".=]\n"
_SCALAR_END = ",]}#\n"


@dataclass(frozen=True)
class Span:
    """A span of the text; line and column count from 1, length is in characters (a line end counts as one)."""

    line: int
    column: int
    length: int


@dataclass(frozen=True)
class Position:
    """The spans of a key and of its value; for an array element and for a table with a header, both are the same span."""

    key: Span
    value: Span


def positions(text: str) -> dict[Key, Position]:
    """The position of every key, table header and array element in TEXT, by path; TEXT must be valid TOML."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """Scans a valid text once; `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.line_start = 0
        self.counted = 0
        self.found: dict[Key, Position] = {}
        self.sizes: dict[Key, int] = {}
        """The number of elements seen so far of each array of tables."""

    def scan(self) -> dict[Key, Position]:
        table: Key = ()
        self.skip()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip()
        return self.found

    def skip(self) -> None:
        """Skip blanks, line ends and comments."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in _BLANK or self.text[self.at] == "\n":
                self.at += 1
            else:
                return

    def blanks(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t"):
            self.at += 1

    def span(self, start: int) -> Span:
        """The span from START to the current offset; fast as long as START does not decrease between calls."""
        if start < self.counted:  # a container ends after its elements
            before = self.text.rfind("\n", 0, start) + 1
            return Span(self.text.count("\n", 0, start) + 1, start - before + 1, self.at - start)
        self.line += self.text.count("\n", self.counted, start)
        self.line_start = self.text.rfind("\n", 0, start) + 1
        self.counted = start
        return Span(self.line, start - self.line_start + 1, self.at - start)

    def header(self) -> Key:
        """Scan `[a.b]` or `[[a.b]]`; returns the path of the table that it opens."""
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        parts = self.dotted()
        self.at += 2 if array else 1
        path: Key = ()
        for name, span in parts[:-1]:
            path = self.enter((*path, name), span)
        name, span = parts[-1]
        path = (*path, name)
        if not array:
            self.found[path] = Position(span, span)  # overrides an earlier mention in a longer header
            return path
        self.found.setdefault(path, Position(span, span))
        self.sizes[path] = self.sizes.get(path, 0) + 1
        path = (*path, self.sizes[path] - 1)
        self.found[path] = Position(span, span)
        return path

    def enter(self, path: Key, span: Span) -> Key:
        """Record a table that a dotted key passes through; an array of tables stands for its last element."""
        self.found.setdefault(path, Position(span, span))
        return (*path, self.sizes[path] - 1) if path in self.sizes else path

    def pair(self, table: Key) -> None:
        """Scan `a.b = value` inside TABLE."""
        parts = self.dotted()
        self.at += 1
        self.blanks()
        path = table
        for name, span in parts[:-1]:
            path = self.enter((*path, name), span)
        name, span = parts[-1]
        self.value((*path, name), span)

    def dotted(self) -> list[tuple[str, Span]]:
        """Scan the parts of a key, up to the `=` or `]` that follows it."""
        parts = []
        while True:
            self.blanks()
            start = self.at
            name = self.part()
            parts.append((name, self.span(start)))
            self.blanks()
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def part(self) -> str:
        """Scan one part of a key, bare or quoted; a quoted one is decoded by tomllib."""
        start = self.at
        if self.text[start] in "\"'":
            self.string()
            quoted: str = tomllib.loads(f"key = {self.text[start : self.at]}")["key"]
            return quoted
        while self.text[self.at] not in _BARE_KEY_END:
            self.at += 1
        return self.text[start : self.at]

    def value(self, path: Key, key: Span | None = None) -> None:
        """Scan any value; KEY is None for an array element."""
        start = self.at
        match self.text[start]:
            case '"' | "'":
                self.string()
            case "[":
                self.array(path)
            case "{":
                self.inline_table(path)
            case _:
                self.scalar()
        span = self.span(start)
        self.found[path] = Position(key or span, span)

    def array(self, path: Key) -> None:
        self.at += 1
        index = 0
        self.skip()
        while self.text[self.at] != "]":
            self.value((*path, index))
            index += 1
            self.separator()
        self.at += 1

    def inline_table(self, path: Key) -> None:
        self.at += 1
        self.skip()
        while self.text[self.at] != "}":
            self.pair(path)
            self.separator()
        self.at += 1

    def separator(self) -> None:
        self.skip()
        if self.text[self.at] == ",":
            self.at += 1
            self.skip()

    def scalar(self) -> None:
        """Scan a number, a boolean or a date (which may contain one blank)."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _SCALAR_END:
            self.at += 1
        self.at = start + len(self.text[start : self.at].rstrip(_BLANK))

    def string(self) -> None:
        """Scan any of TOML's four kinds of string."""
        quote = self.text[self.at]
        long = self.text.startswith(quote * 3, self.at)
        end = quote * 3 if long else quote
        self.at += len(end)
        while not self.text.startswith(end, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(end)
        if long:  # up to two quotes may precede the closing three
            self.at += sum(self.text.startswith(quote * n, self.at) for n in (1, 2))
