# SPDX-License-Identifier: Apache-2.0
"""Words of responses that a report may show in public: names of fields, status words, names of headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.secrecy import LEAST_LENGTH, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Shown in place of a word that may be a value, such as an id, a code or a name of a customer.
NOT_SHOWN = "(not shown)"
#: At most three digits: more may be an id.
_WORD = re.compile(r"[A-Za-z_][A-Za-z_ .-]{0,39}[0-9]{0,3}\Z", re.ASCII)
#: A value of letters only that is shorter may be part of an innocent word: the scope ``coupon`` of ``couponCode``.
_LEAST_WITHIN = 12


class PublicWords:
    """Knows which values must not be shown, and decides which words of a server are.

    :param secrets: Values that are secret, or that belong to the account: never shown.
    :param identifying: Values that the user typed, and may see on the screen, but that are not for the public.
    """

    def __init__(self, secrets: Iterable[Any], identifying: Iterable[Any] = ()) -> None:
        self._secrets: set[str] = set()
        self._identifying: set[str] = set()
        self.add_secrets(*secrets)
        self._identifying.update(_long_texts_in(list(identifying)))

    def add_secrets(self, *values: Any) -> None:
        """Add values that are never shown.

        :param values: Text, numbers, or lists and objects with such values.
        """
        self._secrets.update(_long_texts_in(list(values)))

    def word(self, text: Any) -> str:
        """Return a word, or a placeholder if it may be a value.

        :param text: The word as the server sent it.
        """
        is_word = isinstance(text, str) and _WORD.match(text) is not None
        return text if is_word and not self.is_private(text) else NOT_SHOWN

    def is_private(self, text: str) -> bool:
        """Return whether a text is a private value, or has one in it.

        :param text: The text.
        """
        return any(_contains(text, value) for value in self._secrets | self._identifying)

    def words(self, texts: Iterable[Any]) -> list[str]:
        """Return the words in order, each once.

        :param texts: The words as the server sent them.
        """
        return sorted({self.word(text) for text in texts})

    def line(self, text: str) -> str:
        """Return text of this package on one line, fit for the public.

        :param text: The text.
        """
        return shown(text, secrets=self._secrets | self._identifying)

    def note(self, text: str) -> str:
        """Return a message on one line, for the user's own screen.

        :param text: The message, which may quote a server.
        """
        return shown(text, secrets=self._secrets)


def _contains(word: str, value: str) -> bool:
    if value.isalpha() and len(value) < _LEAST_WITHIN:
        return word.casefold() == value.casefold()
    return value.casefold() in word.casefold()


def _long_texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _long_texts_in(each)
    elif value is not None and not isinstance(value, bool) and len(text := str(value)) >= LEAST_LENGTH:
        yield text
