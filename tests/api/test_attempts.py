# SPDX-License-Identifier: Apache-2.0
"""Recording the requests of a flow changes nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.api.attempts import Attempt, record_attempts
from airflow_provider_capillary.api.flow import SendRequest, Sleep
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, TransportFailure

if TYPE_CHECKING:
    from airflow_provider_capillary.api.flow import Flow

REQUEST = ApiRequest("GET", "https://host/path")
ANSWERS = (TransportFailure("broke off"), Response(200))


def flow(closed: list[bool]) -> Flow[str]:
    try:
        first = yield SendRequest(REQUEST)
        yield Sleep(1)
        second = yield SendRequest(REQUEST)
    finally:
        closed.append(True)
    return f"{first.message} {second.status}"


def test_steps_results_and_the_return_value_are_those_of_the_flow() -> None:
    attempts: list[Attempt] = []
    recorded = record_attempts(flow([]), attempts)

    assert next(recorded) == SendRequest(REQUEST)
    assert recorded.send(ANSWERS[0]) == Sleep(1)
    assert recorded.send(None) == SendRequest(REQUEST)
    with pytest.raises(StopIteration) as stop:
        recorded.send(ANSWERS[1])

    assert stop.value.value == "broke off 200"
    assert attempts == [Attempt(REQUEST, answer) for answer in ANSWERS]
    assert [attempt.response for attempt in attempts] == [None, ANSWERS[1]]


def test_closing_it_closes_the_flow() -> None:
    closed: list[bool] = []
    recorded = record_attempts(flow(closed), [])
    next(recorded)

    recorded.close()

    assert closed == [True]
