# SPDX-License-Identifier: Apache-2.0
"""Which words of a server are shown in public."""

from __future__ import annotations

import pytest

from airflow_provider_capillary.api.public_words import NOT_SHOWN, PublicWords

WORDS = PublicWords(
    ["s3cret-token", {"scopes": ["coupon", {"till": "WESTENDSTATION"}], "org_id": 100458}], identifying=["acme-host"]
)


@pytest.mark.parametrize("word", ["couponCode", "PRE_COMMIT", "x-ratelimit-limit", "address2", "failure reason"])
def test_a_name_is_shown(word: str) -> None:
    assert WORDS.word(word) == word


@pytest.mark.parametrize(
    "word",
    ["org_100458", "4455", "a1234", "name@example.com", "x" * 60, "", "line\nbreak", "überfällig", None, 5],
    ids=repr,
)
def test_what_may_be_a_value_is_not_shown(word: object) -> None:
    assert WORDS.word(word) == NOT_SHOWN


@pytest.mark.parametrize("word", ["acme-host", "X-ACME-HOST-limit", "westendstation_count", "coupon", "COUPON"])
def test_a_word_that_is_a_private_value_or_has_a_long_one_in_it_is_not_shown(word: str) -> None:
    assert WORDS.word(word) == NOT_SHOWN


def test_words_are_in_order_and_each_is_there_once() -> None:
    assert WORDS.words(["b", "a", "b", "1", "2"]) == [NOT_SHOWN, "a", "b"]


def test_a_note_for_the_screen_has_the_host_but_no_secret_and_a_line_for_the_public_has_neither() -> None:
    text = "acme-host refused s3cret-token of 100458"
    assert WORDS.note(text) == "acme-host refused *** of ***"
    assert WORDS.line(text) == "*** refused *** of ***"


def test_a_short_value_is_not_searched_for() -> None:
    assert PublicWords(["eu", 12]).word("queue") == "queue"
