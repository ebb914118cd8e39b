"""The quickstart's reports: different, reproducible, and read back by the rules."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generate import reports


@given(st.integers(0, 1000))
def test_every_report_is_read_back_by_every_rule(seed):
    for text in reports.reports(5, seed):
        sentence, headline, topic = reports.key_sentence(text), reports.headline(text), reports.topic(text)
        assert sentence and sentence in text and text.count(".") == 3
        assert headline and topic in reports.ACTIONS
        last, verb, thing, _, city = headline.split()
        assert last in sentence and thing in sentence and city in sentence and verb not in sentence


def test_the_same_seed_gives_the_same_rows_and_another_other_ones():
    assert list(reports.reports(50, 1)) == list(reports.reports(50, 1)) != list(reports.reports(50, 2))
    assert list(reports.copies(50, 1)) == list(reports.copies(50, 1)) != list(reports.copies(50, 2))


def test_asking_for_more_rows_keeps_the_first_ones():
    assert list(islice(reports.reports(500, 3), 100)) == list(reports.reports(100, 3))


def test_all_reports_are_different():
    texts = list(reports.reports(2000, 4))
    assert len(set(texts)) == 2000


def test_copies_repeat_their_chunks():
    for text in reports.copies(20, 5):
        chunks = text.removesuffix(".").split(". ")
        assert len(set(chunks)) <= 2 and len(chunks) >= 10


def test_the_lexicon_holds_every_word_of_reports_and_answers():
    words = set(reports.lexicon())
    for text in reports.reports(300, 6):
        answers = (reports.headline(text) or "", reports.topic(text) or "")
        assert set(text.replace(".", "").split()) | set(" ".join(answers).split()) <= words


@pytest.mark.parametrize("text", ["", "Nothing happened.", "Anna Silva painted the bank.", "anna"])
def test_other_texts_have_no_answer(text):
    assert reports.key_sentence(text) is reports.headline(text) is reports.topic(text) is None
