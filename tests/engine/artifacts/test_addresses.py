"""A content address may be given by its beginning, if that says which one is meant."""

import pytest

from engine.artifacts.addresses import matching, only
from engine.core.errors import UserError

ADDRESSES = {"one": "sha256:" + "1a" * 32, "two": "sha256:" + "1a" * 3 + "2b" * 29, "three": "sha256:" + "3c" * 32}


@pytest.mark.parametrize("target", ["3c3c3c", "sha256:3c3c3c", "3c" * 32, "sha256:" + "3c" * 32])
def test_a_beginning_names_one(target):
    assert only(target, ADDRESSES) == "three"


@pytest.mark.parametrize("target", ["", "sha256:", "3c", "3c3c3", "three", "4d4d4d", "c3c3c3"])
def test_what_is_no_beginning_of_an_address_names_none(target):
    assert only(target, ADDRESSES) is None and matching(target, ADDRESSES) == []


def test_a_beginning_of_several_is_refused_with_their_names():
    with pytest.raises(UserError, match="content address 1a1a1a is ambiguous: one, two") as caught:
        only("1a1a1a", ADDRESSES)
    assert caught.value.problems[0].hint == "give more of its digits"
    assert only("1a1a1a1", ADDRESSES) == "one" and only("sha256:1a1a1a2", ADDRESSES) == "two"


def test_one_address_of_several_names_is_refused_with_another_hint():
    with pytest.raises(UserError, match="belongs to several steps: one, again") as caught:
        only("1a1a1a1a", ADDRESSES | {"again": ADDRESSES["one"]})
    assert "name" in caught.value.problems[0].hint
