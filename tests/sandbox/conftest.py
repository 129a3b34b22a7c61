# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.sandbox import Sandbox
from tests.sandbox.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """Start a sandbox that is set up as given, with its clock; return a client of it."""
    with contextlib.ExitStack() as stack:

        def start_one(*, clock: Callable[[], float] = time.time, **settings: Any) -> Client:
            sandbox = Sandbox(**settings)
            sandbox.clock = clock
            return Client(stack.enter_context(sandbox))

        yield start_one


@pytest.fixture
def client(start: Callable[..., Client]) -> Client:
    """A client of a sandbox that is set up as by default."""
    return start()


@pytest.fixture
def sandbox(client: Client) -> Sandbox:
    """The sandbox that `client` talks to."""
    return client.sandbox


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)
