# SPDX-License-Identifier: Apache-2.0
"""No token, secret or header value ever shows, at any failure and any log level."""

from __future__ import annotations

import asyncio
import json
import pickle
import secrets
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus

import pytest

from airflow_provider_capillary._transport import connections
from airflow_provider_capillary._transport.async_connection import _amask_tail
from airflow_provider_capillary._transport.connection_state import connection_state
from airflow_provider_capillary._transport.object_storage import translate_errors
from airflow_provider_capillary.api.http_messages import ApiRequest, Response
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.exceptions import CapillaryError, CapillaryErrorFileError, CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.airflow_compat import _secrets_masker, redact
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import closed_port
from tests.hooks.test_error_files import job_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hooks.clients import Client, Opened
    from tests.hooks.conftest import Connect, Logged, Start

TWICE = HttpRetry(max_attempts=2, base_seconds=0.0, retry_after_cap_seconds=0.0)
SECRET = "client-secret-zq81"
HEADER_VALUE = "header-value-77kx"
FAULTS = [
    Fault("status", status=503),
    Fault("status", status=429, retry_after=0),
    Fault("status", status=400),
    Fault("status", status=403),
    Fault("html", status=403),
    Fault("html", status=404),
    Fault("html", status=200),
    Fault("empty"),
    Fault("text"),
    Fault("reset"),
    Fault("cut"),
    Fault("cut", rst=True, fraction=0.2),
    Fault("unmarked"),
    Fault("wrong_length"),
    Fault("slow", seconds=5),
    Fault("gzip"),
    Fault("expired_token"),
    Fault("expired_token", form="body_498"),
    Fault("redirect", location="http://127.0.0.1:9/x"),
    Fault("body", status=200, body={}),
    Fault("body", status=500, body={"errors": [{"code": 1, "message": "?"}]}),
]  # fmt: skip


@pytest.fixture
def sandbox(start: Start) -> Sandbox:
    """A sandbox with a secret that is found in no other text."""
    return start(client_secret=SECRET)


@pytest.fixture
def secretive(sandbox: Sandbox, connect: Connect) -> str:
    """A connection that has all kinds of secrets."""
    return connect(
        sandbox,
        headers={"X-Brand": HEADER_VALUE},
        timeout_seconds=0.2,
        error_file_url=f"{sandbox.base_url}/files/{{handle}}?sig=s3cr3t-signature",
    )


def shown(error: BaseException) -> Iterator[str]:
    """All that an exception shows, with those it came from."""
    yield "".join(traceback.format_exception(error))
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is not None:
            yield f"{current} {current!r} {current.args} {vars(current)}"
            waiting += [current.__cause__, current.__context__]
    if isinstance(error, CapillaryError):
        yield json.dumps(error.to_dict())
        yield repr(pickle.loads(pickle.dumps(error)))


def attempt(work: Callable[[], object]) -> str:
    """Do something that may fail; return all that its end shows."""
    try:
        return repr(work())
    except CapillaryError as error:
        return "\n".join(shown(error))


def ask_with_faults(sandbox: Sandbox, hook: Opened) -> str:
    """Ask while each of the faults happens, once and always."""
    texts = []
    for fault in FAULTS:
        for times in (1, None):
            for endpoint in ("status", "token"):
                sandbox.expire_tokens()
                sandbox.inject(Fault(**{**vars(fault), "endpoint": endpoint, "times": times}))
                texts.append(attempt(hook.jobs))
                sandbox.clear_faults()
    return "\n".join(texts)


def assert_silent(text: str, sandbox: Sandbox) -> None:
    """Nothing of value is in a text."""
    assert len(text) > 1000  # something was logged
    assert sandbox.tokens_issued
    for secret in (SECRET, HEADER_VALUE, *sandbox.tokens_issued):
        assert secret not in text


def test_nothing_shows_of_questions_that_fail(client: Client, sandbox: Sandbox, secretive: str, logged: Logged) -> None:
    with client.opened(secretive, policy=TWICE) as hook:
        texts = ask_with_faults(sandbox, hook)
        texts += f"{hook.hook!r} {hook.hook} {vars(hook.hook)}"
    assert_silent(texts, sandbox)
    assert_silent(logged.text, sandbox)


def test_nothing_shows_of_files_that_fail(sandbox: Sandbox, secretive: str, logged: Logged) -> None:
    content = b"not issued,PERSONAL-DATA-0001\n" * 20_000
    job = job_at(sandbox.add_job(SERIES, errors=1, error_file=content).handle)
    hook = CapillaryHook(secretive, http_retry=TWICE)

    def read() -> int:
        with hook.open_error_file(job) as stream:
            return len(stream.read())

    texts = []
    for fault in FAULTS:
        if fault.kind == "slow":
            continue
        for times in (1, None):
            sandbox.inject(Fault(**{**vars(fault), "endpoint": "files", "times": times}))
            texts.append(attempt(read))
            sandbox.clear_faults()
    everything = "\n".join(texts)
    assert_silent(everything, sandbox)
    assert "PERSONAL-DATA" not in everything
    assert "s3cr3t-signature" not in everything
    text = logged.text
    assert_silent(text, sandbox)
    assert "PERSONAL-DATA" not in text


def test_a_signature_is_kept_out_of_task_logs(sandbox: Sandbox, secretive: str, logged: Logged) -> None:
    # The query of a signed URL is as good as a password for the file, and urllib3 logs it at DEBUG.
    job = sandbox.add_job(SERIES, errors=1)
    hook = CapillaryHook(secretive, http_retry=QUICK)
    with hook.open_error_file(job_at(job.handle)) as stream:
        assert stream.read()
    assert sandbox.requests[-1].query == "sig=s3cr3t-signature"
    assert "s3cr3t-signature" not in redact(logged.text)


@pytest.mark.parametrize(
    "signature", ["ab%2bcd%2fef%3d-s3cr3t%3d", "ab+cd/ef=-s3cr3t=", "ab%2Bcd%7Eef-s3cr3t%3D", "s3cr3t" * 30 + "%2b%3d"]
)
def test_so_it_is_in_the_spelling_that_the_libraries_make_of_it(
    sandbox: Sandbox, secretive: str, logged: Logged, signature: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1)
    hook = CapillaryHook(secretive, http_retry=QUICK)
    with hook.open_error_file(job_at(f"{sandbox.base_url}/files/{job.handle}?sig={signature}&x=1")) as stream:
        assert stream.read()
    text = redact(logged.text)
    # What stands before the last 32 characters may show: it opens nothing.
    sent = sandbox.requests[-1].query.removeprefix("sig=").removesuffix("&x=1")
    for spelling in (signature, sent, unquote(signature), unquote_plus(signature)):
        assert spelling[-32:] not in text


@pytest.mark.parametrize("signature", ["s3cr3t%2bof-the-auth-url%3d", "s3cr3t" * 30])
def test_so_is_the_query_of_the_authentication_url(
    client: Client,
    sandbox: Sandbox,
    connect: Connect,
    logged: Logged,
    caplog: pytest.LogCaptureFixture,
    signature: str,
) -> None:
    # urllib3 logs the URL of each request. The client of httpx would, at INFO; httpcore does not.
    for name in ("httpx", "httpcore"):
        caplog.set_level("DEBUG", name)
    connect(sandbox, auth_url=f"{sandbox.base_url}/v3/oauth/token/generate?apikey={signature}")
    client.jobs()
    sent = sandbox.requests[0].query.removeprefix("apikey=")
    raw = logged.text
    assert (sent in raw) is not client.is_async
    for spelling in (signature, sent, unquote(signature)):
        assert spelling[-32:] not in redact(raw)


def test_so_is_that_of_a_redirect(sandbox: Sandbox, secretive: str, logged: Logged) -> None:
    job = sandbox.add_job(SERIES, errors=1)
    sandbox.inject(Fault("redirect", endpoint="files", location=f"/files/{job.handle}?sig=another-s3cr3t"))
    hook = CapillaryHook(secretive, http_retry=QUICK)
    with hook.open_error_file(job_at("elsewhere")) as stream:
        assert stream.read()
    assert sandbox.requests[-1].query == "sig=another-s3cr3t"
    assert "another-s3cr3t" not in redact(logged.text)


def test_nothing_shows_of_a_session_of_ones_own(sandbox: Sandbox, secretive: str, logged: Logged) -> None:
    sandbox.inject(Fault("redirect", endpoint="other", location="/coupon/y"))
    with CapillaryHook(secretive).get_conn() as session:
        answer = session.get(f"{sandbox.base_url}/coupon/x")
        assert_silent(f"{logged.text} {session!r} {answer!r} {session.headers} {session.auth!r}" + " " * 1000, sandbox)


@pytest.mark.parametrize("value", ["1", "5", "535"])
def test_a_short_header_value_does_not_spoil_a_message(
    client: Client, sandbox: Sandbox, connect: Connect, value: str
) -> None:
    connect(sandbox, headers={"X-Brand": value})
    body = {"success": False, "status": 8001, "message": "there is no series 535512"}
    sandbox.inject(Fault("body", endpoint="status", status=400, body=body))
    with pytest.raises(CapillaryError, match="there is no series 535512"):
        client.jobs()


@pytest.mark.parametrize("where", ["token", "status"])
def test_the_request_id_is_short_and_printable_and_echoes_nothing(
    client: Client, sandbox: Sandbox, secretive: str, where: str
) -> None:
    with client.opened(secretive, policy=TWICE) as hook:
        hook.jobs()
        sandbox.expire_tokens()
        echo = f"\x9b31m {SECRET} {HEADER_VALUE} {sandbox.tokens_issued[0] if where == 'status' else ''}"
        headers = {"X-CAP-REQUEST-ID": echo + "x" * 5000}
        sandbox.inject(Fault("status", endpoint=where, status=400, headers=headers, times=None))
        with pytest.raises(CapillaryError) as caught:
            hook.jobs()
    request_id = caught.value.request_id
    assert request_id is not None
    assert request_id.startswith("31m *** ***")
    assert request_id.isprintable()
    assert len(request_id) <= 100
    assert_silent("\n".join(shown(caught.value)) + " " * 1000, sandbox)


@pytest.mark.parametrize("where", ["token", "status"])
@pytest.mark.parametrize("status", [200, 401, 500])
def test_an_error_that_echoes_them_is_blackened(
    client: Client, sandbox: Sandbox, secretive: str, logged: Logged, where: str, status: int
) -> None:
    with client.opened(secretive) as hook:
        hook.jobs()
        echo = f"you sent {SECRET} with {HEADER_VALUE} and {sandbox.tokens_issued[0]}, you fool"
        body = {"success": False, "status": 8001, "message": echo, "errors": None}
        if where == "token":
            sandbox.expire_tokens()
            body["message"] = f"you sent {SECRET} with {HEADER_VALUE}, you fool"
        sandbox.inject(Fault("body", endpoint=where, status=status, body=body, times=None))
        text = attempt(hook.jobs)
    assert "Capillary" in text
    assert_silent(text + " " * 1000, sandbox)
    assert_silent(logged.text + " " * 1000, sandbox)


def test_an_error_of_a_file_that_echoes_the_token_is_blackened(sandbox: Sandbox, secretive: str) -> None:
    hook = CapillaryHook(secretive, http_retry=QUICK)
    hook.get_redeem_upload_jobs(SERIES)
    body = {"success": False, "status": 8001, "message": f"token {sandbox.tokens_issued[0]} may not read this"}
    sandbox.inject(Fault("body", endpoint="files", status=400, body=body))

    def read() -> bytes:
        with hook.open_error_file(job_at("handle")) as stream:
            return stream.read()

    assert_silent(attempt(read) + " " * 1000, sandbox)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_what_a_store_says_is_one_short_line_without_a_signature(kind: type[Exception]) -> None:
    said = "403, url=https://account.blob.core.windows.net/x?sig=s3cr3t-signature\nRequestId: 1\n" + "x" * 5000
    with pytest.raises(CapillaryErrorFileError) as caught, translate_errors("the destination cannot be written"):
        raise kind(said)
    message = caught.value.message
    assert "url=https://account.blob.core.windows.net/x?*** RequestId: 1" in message
    assert "s3cr3t" not in message
    assert message.isprintable()
    assert len(message) < 600


def test_nothing_shows_of_a_host_that_cannot_be_reached(
    client: Client, sandbox: Sandbox, connect: Connect, logged: Logged
) -> None:
    connect(sandbox, headers={"X-Brand": HEADER_VALUE})
    client.jobs()
    connect(
        sandbox,
        fields={"port": closed_port()},
        headers={"X-Brand": HEADER_VALUE},
        auth_url=f"{sandbox.base_url}/v3/oauth/token/generate?apikey=s3cr3t-signature",
    )
    with pytest.raises(CapillaryTransportError) as caught:
        client.jobs()
    text = "\n".join(shown(caught.value)) + " " * 1000
    assert_silent(text, sandbox)
    assert_silent(logged.text + " " * 1000, sandbox)
    # Nor does what the libraries raised, whose texts and attributes nobody here controls.
    for library in ("requests.exceptions", "httpx.", "httpcore."):
        assert library not in text


def test_nothing_shows_in_a_repr(sandbox: Sandbox, secretive: str) -> None:
    hook = CapillaryHook(secretive)
    hook.get_redeem_upload_jobs(SERIES)
    settings = hook.settings
    connection = hook._connection.open()
    token = connection.run(connection.client.get_token())
    state = connection_state(settings)
    headers = {"X-CAP-API-OAUTH-TOKEN": token.value, "X-Brand": HEADER_VALUE}
    values: list[Any] = [
        settings,
        token,
        state,
        state.tokens,
        state.limiter,
        connection,
        connection.transport,
        connection.client,
        ApiRequest("POST", sandbox.base_url, headers=headers, body=SECRET.encode()),
        Response(200, headers, body=token.value.encode()),
        hook,
        hook.get_conn(),
    ]
    assert_silent("\n".join(f"{value!r} {value}" for value in values) + " " * 1000, sandbox)


def test_nor_does_the_signature_of_a_template(secretive: str) -> None:
    assert "s3cr3t-signature" not in repr(CapillaryHook(secretive).settings)


def _record_masks(monkeypatch: pytest.MonkeyPatch, masked: list[str]) -> None:
    async def record(secret: str) -> None:
        masked.append(secret)

    monkeypatch.setattr(connections, "mask_secret", masked.append)
    monkeypatch.setattr(connections, "amask_secret", record)


def left_of(token: str, client: Client) -> str:
    """What is not masked of a token: in a triggerer, all but the signature."""
    return token[:-32] if client.is_async else ""


class TestMasking:
    """What Airflow masks in task logs."""

    def test_of_the_token(self, client: Client, sandbox: Sandbox, secretive: str) -> None:
        client.jobs(secretive)
        (token,) = sandbox.tokens_issued
        assert redact(f"the token is {token}") == f"the token is {left_of(token, client)}***"

    def test_of_short_header_values_is_not_asked_of_airflow_which_would_warn(
        self, client: Client, start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        masked: list[str] = []
        _record_masks(monkeypatch, masked)
        client.jobs(connect(start(), headers={"X-CAP-API-AUTH-ORG-ID": "1234", "X-Brand": HEADER_VALUE}))
        assert HEADER_VALUE in masked
        assert [value for value in masked if len(value) < 5] == []

    def test_of_short_values_happens_where_airflow_is_configured_so(
        self, client: Client, start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET", "3")
        masked: list[str] = []
        _record_masks(monkeypatch, masked)
        client.jobs(connect(start(), headers={"X-Three": "q7x", "X-Two": "q7"}))
        assert "q7x" in masked
        assert "q7" not in masked

    def test_of_a_short_client_secret_is_impossible_which_a_warning_says(
        self, client: Client, start: Start, connect: Connect, logged: Logged
    ) -> None:
        client.jobs(connect(start(client_secret="q7xz")))
        assert logged.text.count("has a Client secret of fewer than 5 characters") >= 1
        assert "q7xz" not in logged.text

    def test_of_each_new_one(self, client: Client, sandbox: Sandbox, secretive: str) -> None:
        with client.opened(secretive) as hook:
            hook.jobs()
            sandbox.expire_tokens()
            hook.jobs()
        assert len(sandbox.tokens_issued) == 2
        assert redact(sandbox.tokens_issued) == [f"{left_of(token, client)}***" for token in sandbox.tokens_issued]

    def test_of_the_secret_and_the_header_values(self, client: Client, start: Start, connect: Connect) -> None:
        number = "async" if client.is_async else "sync"
        sandbox = start(client_secret=f"another-secret-{number}")
        connect(sandbox, headers={"X-Brand": f"another-value-{number}"})
        with client.opened():
            if not client.is_async:
                client.jobs()
        assert redact(f"a another-secret-{number} b another-value-{number} c") == "a *** b *** c"

    def test_of_the_token_of_a_connection_test(self, sandbox: Sandbox, secretive: str) -> None:
        assert CapillaryHook(secretive).test_connection()[0]
        assert redact(sandbox.tokens_issued) == ["***"]

    async def test_of_the_token_even_where_many_wait_for_it(self, sandbox: Sandbox, secretive: str) -> None:
        sandbox.inject(Fault("slow", endpoint="token", seconds=0.1))
        async with CapillaryAsyncHook(secretive, http_retry=QUICK) as hook:
            await asyncio.gather(*(hook.get_redeem_upload_jobs(SERIES) for _ in range(10)))
        (token,) = sandbox.tokens_issued
        assert redact(token) == f"{token[:-32]}***"

    async def test_of_many_tokens_costs_little(self) -> None:
        # A triggerer gets a thousand in four days. Masked whole, the last alone took most of a second on the loop.
        tokens = [f"eyJhbGciOiJSUzI1NiJ9.{secrets.token_urlsafe(500)}" for _ in range(100)]
        for token in tokens:
            await _amask_tail(token)

        assert len("|".join(_secrets_masker().patterns)) < 10_000
        assert all(token not in redact(f"a {token} b") for token in tokens)

    def test_of_many_signed_urls_costs_little(self, sandbox: Sandbox, secretive: str) -> None:
        # Airflow compiles all masks again for every new one. With whole queries, 200 files took 38 s for that alone.
        job = sandbox.add_job(SERIES, errors=1)
        hook = CapillaryHook(secretive, http_retry=QUICK)
        queries = []
        for number in range(50):
            token, signature = secrets.token_urlsafe(500), secrets.token_hex(32)
            queries.append(
                f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261125T0000{number:02d}Z&X-Amz-Expires=900"
                f"&X-Amz-Security-Token={token}&X-Amz-Signature={signature}"
            )
            with hook.open_error_file(job_at(f"{sandbox.base_url}/files/{job.handle}?{queries[-1]}")) as stream:
                assert stream.read()

        # Two secrets of 32 characters, some of which are escaped in the pattern.
        assert len("|".join(_secrets_masker().patterns)) < 50 * 2 * 40 + 1000
        assert all(query not in redact(f"GET /x?{query}") for query in queries)
        assert all(query[-32:] not in redact(query) for query in queries)
