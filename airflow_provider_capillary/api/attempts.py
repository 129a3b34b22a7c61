# SPDX-License-Identifier: Apache-2.0
"""Records the requests of a flow and their results, while a transport carries the flow out as always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.flow import SendRequest
from airflow_provider_capillary.api.http_messages import Response

if TYPE_CHECKING:
    from airflow_provider_capillary.api.flow import Flow, T
    from airflow_provider_capillary.api.http_messages import ApiRequest, TransportFailure


@dataclass(frozen=True)
class Attempt:
    """One request that was sent, and its result."""

    request: ApiRequest
    result: Response | TransportFailure

    @property
    def response(self) -> Response | None:
        """The response; None if none arrived whole."""
        return self.result if isinstance(self.result, Response) else None


def record_attempts(flow: Flow[T], attempts: list[Attempt]) -> Flow[T]:
    """Return the same flow. Each request that it sends is appended to a list, with its result.

    :param flow: The flow. The result that it returns, or the error that it raises, is unchanged.
    :param attempts: The list.
    """
    got: Any = None
    try:
        while True:
            try:
                step = flow.send(got)
            except StopIteration as stop:
                result: T = stop.value
                return result
            got = yield step
            if isinstance(step, SendRequest):
                attempts.append(Attempt(step.request, got))
    finally:
        flow.close()
