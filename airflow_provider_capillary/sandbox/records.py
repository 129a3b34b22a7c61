# SPDX-License-Identifier: Apache-2.0
"""What the sandbox remembers of the requests it got."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

#: Larger bodies are not kept: an upload can be hundreds of megabytes.
BODY_KEPT = 64 * 1024
#: Only the newest requests are kept, since a sandbox may run for weeks; the counts cover all of them.
REQUESTS_KEPT = 10_000


class Headers(Mapping[str, str]):
    """Headers of a request; names are compared without case, repeated ones are joined by a comma.

    :param items: names and values in the order they came
    """

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in items:
            known = self._values.get(name.lower())
            self._values[name.lower()] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Names only: a value may be a token, and pytest prints what an assertion compared.
        return f"Headers({', '.join(self._values)})"


@dataclass(frozen=True)
class RecordedRequest:
    """One request, as it came in.

    :param method: ``GET``, ``POST``, ...
    :param path: path as the client wrote it, without the query
    :param query: what follows the question mark, or ""
    :param headers: case-insensitive mapping
    :param endpoint: ``token``, ``status``, ``upload``, ``download``, ``files`` or ``other``
    :param body: the body where it is at most 64 KiB, else ``b""``
    :param body_size: length of the body in bytes
    :param at: when it began, in monotonic seconds
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Headers
    endpoint: str
    body: bytes = field(repr=False)
    body_size: int
    at: float


class Recorder:
    """Keeps requests and counts; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque(maxlen=REQUESTS_KEPT)
        self._counts: Counter[str] = Counter()

    def add(self, request: RecordedRequest) -> None:
        """Remember one request."""
        with self._lock:
            self._requests.append(request)
            self._counts[request.endpoint] += 1

    def requests(self) -> list[RecordedRequest]:
        """Return the requests kept, oldest first."""
        with self._lock:
            return list(self._requests)

    def counts(self) -> dict[str, int]:
        """Return how many requests each endpoint has had."""
        with self._lock:
            return dict(self._counts)
