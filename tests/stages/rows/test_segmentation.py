"""Words of every script; of ASCII text exactly what the metrics' publications make of it."""

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.rows.segmentation import characters, count_words, has_letters_beyond_ascii, is_spaceless, words
from stages.rows.words import words as folded

ASCII = st.text(st.characters(max_codepoint=127))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("今天天气很好。", "今 天 天 气 很 好"),
        ("コンピュータを使う", "コンピュータ を 使 う"),
        ("สวัสดี", "ส วั ส ดี"),
        ("नमस्ते, दुनिया।", "नमस्ते दुनिया"),
        ("क्\u200dष", "क्\u200dष"),
        ("한국어 텍스트", "한국어 텍스트"),
        ("مُحَمَّد قال", "مُحَمَّد قال"),
        ("שָׁלוֹם עולם", "שָׁלוֹם עולם"),
        ("Übergröße naïve l’été", "Übergröße naïve l été"),
        ("Привет, мир", "Привет мир"),
        ("GPT-4很好 2024年", "GPT 4 很 好 2024 年"),
        ("don't 3.14 a_b", "don t 3 14 a_b"),
        ("👍 — …", ""),
    ],
)
def test_words_of_every_script(text, wanted):
    assert words(text) == [unicodedata.normalize("NFC", word) for word in wanted.split()]


@given(ASCII)
def test_words_of_ascii_text_are_its_runs_of_letters_digits_and_underscores(text):
    assert words(text) == re.findall(r"\w+", text, re.ASCII)
    assert folded(text) == re.findall(r"[^\W_]+", text.casefold(), re.ASCII)
    assert count_words(text) == len(text.split()) and not is_spaceless(text) and not has_letters_beyond_ascii(text)


@given(st.text())
def test_no_letter_is_lost_and_no_mark_torn_from_its_letter(text):
    text = unicodedata.normalize("NFC", text)
    for cut in (words, characters):
        found = cut(text)
        kept = "".join(found)
        assert [c for c in text if c.isalpha() or c.isdecimal()] == [c for c in kept if c.isalpha() or c.isdecimal()]
        assert all(not unicodedata.combining(word[0]) for word in found if any(c.isalpha() for c in word)) or unicodedata.combining(text[0])


@given(st.text(st.sampled_from("éàüñçô e a")))
def test_composed_and_decomposed_letters_are_the_same(text):
    assert words(unicodedata.normalize("NFD", text)) == words(text)


def test_words_are_counted_as_people_count_them():
    assert count_words("今天 天气") == 4 and count_words("don't stop — now") == 4 and count_words("नमस्ते दुनिया") == 2
    rng = random.Random(0)
    letters = [chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(200)]
    assert count_words("".join(letters)) == 200
