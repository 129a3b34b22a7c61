# SPDX-License-Identifier: Apache-2.0
"""A driver for the tests: it carries out the steps of an exchange with scripted answers and a clock of its own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import strategies as st

from airflow_provider_capillary.api.client import CapillaryClient
from airflow_provider_capillary.api.connection_parser import parse_connection
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.flow import (
    AwaitToken,
    EmitChunk,
    Flow,
    MaskSecret,
    Measure,
    ReadBody,
    SendRequest,
    Sleep,
    Step,
)
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, TransportFailure
from airflow_provider_capillary.api.limiter import RequestLimiter
from airflow_provider_capillary.api.tokens import TokenCache, make_token
from airflow_provider_capillary.api.upload_kinds import REDEEM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings

SAMPLES = Path(__file__).parent / "samples"

HOST = "eu.api.capillarytech.com"
API = f"https://{HOST}"
TOKEN_URL = f"{API}/v3/oauth/token/generate"
TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"
KEY = "client-key-4711"
SECRET = "client-secret-zq81"
HEADER_VALUE = "header-value-77kx"

#: A limit that no test reaches.
UNLIMITED = 1_000_000


# --- connections -------------------------------------------------------------------------------------------------


@dataclass
class Connection:
    """What is read of an Airflow connection."""

    host: Any = HOST
    port: Any = None
    login: Any = KEY
    password: Any = SECRET
    extra: Any = None
    schema: Any = None


def settings(conn_id: str = "capillary_test", /, *, extra: Any = None, **fields: Any) -> ConnectionSettings:
    """Read a connection; ``extra`` as an object or as the stored text."""
    stored = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return parse_connection(conn_id, Connection(extra=stored, **fields))


# --- answers -----------------------------------------------------------------------------------------------------


def reply(
    body: Any = b"", status: int = 200, /, *, rest: Iterable[bytes | TransportFailure] | None = None, **headers: str
) -> Response:
    """Make an answer.

    :param body: Bytes as they stand, text encoded, anything else as JSON.
    :param rest: What comes behind the body of a streamed answer, piece by piece.
    :param headers: ``retry_after`` is the header ``retry-after``.
    """
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    stream = None if rest is None else iter(rest)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, stream)


def sample(name: str) -> Any:
    """Return an official sample, decoded."""
    return json.loads((SAMPLES / f"{name}.json").read_text())


def token_reply(value: str = "token-1", ttl: Any = 300) -> Response:
    return reply({"data": {"accessToken": value, "ttlSeconds": ttl}, "errors": None})


def jobs_reply(*jobs: dict[str, Any]) -> Response:
    return reply({"success": True, "status": 200, "result": {"redeemUploadJobStatuses": list(jobs)}})


def v11(code: Any, message: str = "Refused") -> dict[str, Any]:
    return {"response": {"status": {"success": "true", "code": code, "message": message}}}


def v2(code: Any, message: str = "Refused") -> dict[str, Any]:
    return {"warnings": [], "errors": [{"status": False, "code": code, "message": message}]}


def v3(code: Any, message: str = "Refused") -> dict[str, Any]:
    return {"data": None, "errors": [{"code": code, "message": message}], "warnings": None}


def auth(code: Any, message: str = "Refused") -> dict[str, Any]:
    return {"status": {"success": False, "code": code, "message": message}}


def coupon(code: Any, message: str = "Refused") -> dict[str, Any]:
    return {"success": False, "status": code, "message": message}


ENVELOPES = (coupon, v3, v2, v11, auth)


# --- the driver --------------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still unless it is reported."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Conversation:
    """One flow, step by step. It stops at a :class:`SendRequest` without a response, and at an :class:`AwaitToken`."""

    def __init__(self, flow: Flow[Any], clock: Clock) -> None:
        self.exchange = flow
        self.clock = clock
        self.steps: list[Step] = []
        #: What was reported for metrics.
        self.facts: list[Measure] = []
        self.pending: Step | None = None
        self.error: CapillaryError | None = None
        self.is_over = False
        self._value: Any = None
        self._move(lambda: next(flow))

    def give(self, value: Any = None) -> Conversation:
        """Answer the pending step."""
        assert not self.is_over
        self._move(lambda: self.exchange.send(value))
        return self

    def run(
        self, *script: Response | TransportFailure | Callable[[ApiRequest], Response | TransportFailure]
    ) -> Conversation:
        """Carry out steps until the exchange ends, or needs what only somebody else can give."""
        answers = list(script)
        while not self.is_over:
            match self.pending:
                case SendRequest(request) if answers:
                    response = answers.pop(0)
                    self.give(response(request) if callable(response) else response)
                case Sleep(seconds):
                    assert seconds >= 0
                    self.clock.now += seconds
                    self.give()
                case MaskSecret() | EmitChunk():
                    self.give()
                case ReadBody(response):
                    self.give(
                        response.rest if isinstance(response.rest, TransportFailure) else next(response.rest, b"")
                    )
                case AwaitToken(future) if future.done():
                    self.give(future.result())
                case _:
                    break
        assert not answers, f"{len(answers)} answers were not asked for"
        return self

    def run_with(
        self, server: Callable[[ApiRequest], Response | TransportFailure], *, steps: int = 10_000
    ) -> Conversation:
        """Carry out all steps, every request being answered by ``server``."""
        while not self.run().is_over and isinstance(self.pending, SendRequest):
            assert len(self.steps) < steps, "it never ends"
            self.give(server(self.pending.request))
        return self

    def close(self) -> None:
        """Cancel it, as a driver does whose caller went away."""
        self.exchange.close()
        self.is_over = True

    @property
    def value(self) -> Any:
        """What the exchange returned, or raise what it raised."""
        assert self.is_over, f"still at {self.pending!r}"
        if self.error is not None:
            raise self.error
        return self._value

    @property
    def requests(self) -> list[ApiRequest]:
        return [step.request for step in self.steps if isinstance(step, SendRequest)]

    @property
    def waits(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Sleep)]

    @property
    def received(self) -> bytes:
        """The bytes of the file that were handed on."""
        return b"".join(step.data for step in self.steps if isinstance(step, EmitChunk))

    @property
    def kinds(self) -> list[str]:
        return [type(step).__name__ for step in self.steps]

    def _move(self, move: Callable[[], Step]) -> None:
        try:
            step = move()
            while isinstance(step, Measure):
                self.facts.append(step)
                step = self.exchange.send(None)
            self.pending = step
            self.steps.append(step)
        except StopIteration as stop:
            self.pending, self.is_over, self._value = None, True, stop.value
        except CapillaryError as error:
            self.pending, self.is_over, self.error = None, True, error


class Client:
    """Everything that the users of one connection share, and the exchanges they have."""

    def __init__(
        self,
        connection: ConnectionSettings | None = None,
        *,
        requests_per_minute: int = UNLIMITED,
        retry: HttpRetry | None = None,
        random: Callable[[], float] = lambda: 0.5,
        now: datetime = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC),
    ) -> None:
        self.clock = Clock()
        self.settings = connection or settings()
        self.tokens = TokenCache(monotonic=self.clock)
        self.limiter = RequestLimiter(requests_per_minute, monotonic=self.clock)
        self.api = CapillaryClient(
            self.settings, tokens=self.tokens, limiter=self.limiter, retry=retry, random=random, now=lambda: now
        )

    def with_token(self, value: str = "token-0", ttl: float = 1_000_000) -> Client:
        """Begin with a token at hand, for tests of what comes after it."""
        refresh, is_ours = self.tokens.acquire()
        assert is_ours
        self.tokens.complete(refresh, make_token(value, ttl, asked_at=self.clock()))
        return self

    def start(self, flow: Flow[Any]) -> Conversation:
        return Conversation(flow, self.clock)

    def run(self, flow: Flow[Any], *script: Any) -> Conversation:
        """Run an exchange to its end; the script must be exactly what it asks for."""
        conversation = self.start(flow).run(*script)
        assert conversation.is_over, f"still at {conversation.pending!r}"
        return conversation

    def get_jobs(self, *script: Any) -> Conversation:
        return self.run(self.api.get_upload_jobs(REDEEM, 909234), *script)

    def get_token(self, *script: Any) -> Conversation:
        return self.run(self.api.get_token(), *script)


def attempt(call: Callable[[], Any]) -> tuple[Any, CapillaryError | None]:
    """Return what a call returned or which error of ours it raised; other errors pass through."""
    try:
        return call(), None
    except CapillaryError as error:
        return None, error


# --- generated values --------------------------------------------------------------------------------------------

_FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "0"))


def examples(count: int) -> hypothesis.settings:
    """As many examples, the same in every run; with EXAMPLES_FACTOR set, that many times more and new ones."""
    return hypothesis.settings(
        max_examples=count * max(_FACTOR, 1),
        derandomize=_FACTOR == 0,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


any_text = st.text(st.characters(exclude_categories=()), max_size=40)

_KEYS = [
    "success",
    "status",
    "result",
    "errors",
    "error",
    "code",
    "message",
    "response",
    "data",
    "accessToken",
    "ttlSeconds",
    "warnings",
    "redeemUploadJobStatuses",
    "orgId",
    "couponSeriesId",
    "jobId",
    "uploadRedeemedCouponStatus",
    "createdOn",
    "updatedOn",
    "errorFileUrl",
    "uploadedFileUrl",
    "uploadedFileName",
    "totalUploadedCount",
    "actualRowCount",
    "errorCount",
]

json_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.sampled_from([401, "401", 498, 429, 500, 4000, 320001, "false", "true", "COMPLETED", 10**400, "9" * 400, ""])
)
json_values = st.recursive(
    json_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS) | any_text, inner, max_size=6),
    max_leaves=12,
)

optional_values = st.none() | st.integers(-5, 10**18) | st.integers(0, 10**6).map(str) | any_text | st.just(10**400)
raw_jobs = st.fixed_dictionaries(
    {
        "jobId": st.integers(0, 10**9) | st.integers(0, 10**9).map(str),
        "uploadRedeemedCouponStatus": st.sampled_from(["QUEUED", " completed ", "Errorred", "??"]) | any_text,
    },
    optional=dict.fromkeys(
        [
            "createdOn",
            "updatedOn",
            "errorFileUrl",
            "successFileUrl",
            "uploadedFileUrl",
            "uploadedFileName",
            "totalUploadedCount",
            "actualRowCount",
            "errorCount",
            "uploadTableName",
        ],
        optional_values,
    ),
)

answers = st.builds(
    Response,
    status=st.integers(100, 599) | st.sampled_from([200, 200, 200, 206, 302, 401, 429, 503]),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "content-type",
                "retry-after",
                "date",
                "location",
                "content-range",
                "etag",
                "accept-ranges",
                "x-cap-request-id",
                "content-length",
                "content-encoding",
                "transfer-encoding",
            ]
        ),
        any_text
        | st.sampled_from(
            [
                "text/html",
                "5",
                "Wed, 21 Oct 2026 07:28:00 GMT",
                "/elsewhere",
                "https://files.example.com/f",
                "//[",
                "bytes",
                "bytes 0-4/5",
                "chunked",
                "gzip",
            ]
        ),
        max_size=4,
    ),
    body=(
        st.binary(max_size=60)
        | json_values.map(lambda value: json.dumps(value).encode())
        | st.lists(raw_jobs, max_size=3).map(
            lambda jobs: json.dumps({"success": True, "result": {"redeemUploadJobStatuses": jobs}}).encode()
        )
        | st.sampled_from([b"", b"{}", b"null", token_reply().body, token_reply(ttl=10**400).body, b"[" * 100_000])
    ),
    rest=st.none()
    | st.lists(st.binary(min_size=1, max_size=9) | st.just(TransportFailure("it broke off")), max_size=3).map(iter),
)
