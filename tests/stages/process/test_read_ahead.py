"""Work ahead: results in order, one item beyond the present one, errors where they belong."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.process.read_ahead import ahead


@given(st.lists(st.integers(), max_size=20))
def test_results_are_those_of_a_plain_map(items):
    assert list(ahead(lambda item: item * 2, items)) == [item * 2 for item in items]


def test_a_result_is_worked_on_while_the_next_one_is_made():
    begun = [threading.Event() for _ in range(3)]

    def work(item):
        begun[item].set()
        return item

    for result in ahead(work, range(3)):
        assert result == 2 or begun[result + 1].wait(timeout=10), "the next one is under way"


def test_no_more_than_one_item_is_read_ahead():
    read = []

    def items():
        for number in range(5):
            read.append(number)
            yield number

    for result in ahead(lambda item: item, items()):
        assert len(read) <= result + 2


def test_an_error_comes_where_its_result_would_have_been():
    def work(item):
        if item == 2:
            raise ValueError("two")
        return item

    found = []
    with pytest.raises(ValueError, match="two"):
        for result in ahead(work, range(5)):
            found.append(result)
    assert found == [0, 1]
