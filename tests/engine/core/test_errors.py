"""What is shown of data in a terminal: characters that a terminal would obey are shown, all others are unchanged."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Location, UserError, visible


@given(st.text())
def test_shown_text_has_nothing_that_a_terminal_obeys(text: str):
    shown = visible(text)
    assert (
        not {c for c in shown if ord(c) < 32 and c not in "\n\t"}
        and "\x7f" not in shown
        and not set(shown) & set(map(chr, range(128, 160)))
    )
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_ordinary_text_is_unchanged(text: str):
    assert visible(text) == text


def test_joiners_of_scripts_and_emoji_are_ordinary():
    for text in ("می\u200cخواهم", "👩\u200d🔬", "\u200fשלום", "a\tb\nc"):
        assert visible(text) == text


def test_errors_show_what_data_holds():
    error = UserError("a column is called \x1b[31mred", Location("rows.jsonl", 1, 1, "\x1b]0;title\x07"), "rename \x9b1m")
    assert str(error.problems[0]) == (
        "error: a column is called \\x1b[31mred\n  --> rows.jsonl:1:1\n  1 | \\x1b]0;title\\x07\n    | ^\n  hint: rename \\x9b1m"
    )
