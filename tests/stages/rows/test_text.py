"""Small questions about text."""

from hypothesis import given
from hypothesis import strategies as st

from stages.rows.text import ascii_surrogates, is_well_formed, shorten


@given(st.text(st.characters()))
def test_well_formed_is_what_has_no_surrogate(text):
    assert is_well_formed(text) == (not any("\ud800" <= character <= "\udfff" for character in text))


@given(st.text(st.characters()))
def test_messages_can_always_be_printed(text):
    assert is_well_formed(shorten(text)) and is_well_formed(ascii_surrogates(text))


def test_long_text_is_cut():
    assert shorten("x" * 200, 10) == "'xxxxxxxxxx…'" and shorten("a\n\x00") == r"'a\n\x00'"
