# SPDX-License-Identifier: Apache-2.0
"""One question at a time: what is sent, what is sent again, and what errors report."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.download import read_file
from airflow_provider_capillary.api.error_files import DownloadSource, UrlSource
from airflow_provider_capillary.api.errors import (
    CapillaryApiError,
    CapillaryConfigurationError,
    CapillaryError,
    CapillaryJobNotFoundError,
    CapillaryRateLimitError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.flow import SendRequest
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, TransportFailure
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.api.tokens import Token
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from tests.api.flows import (
    API,
    HEADER_VALUE,
    KEY,
    SECRET,
    TOKEN_HEADER,
    TOKEN_URL,
    Client,
    Conversation,
    answers,
    coupon,
    examples,
    jobs_reply,
    reply,
    sample,
    settings,
    token_reply,
    v2,
    v11,
)

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS_URL = f"{API}/coupon/api/v1/upload/getUploadRedeemedCouponStatus/909234"
LOST = TransportFailure("the connection was reset")
HTML = "<!DOCTYPE html><html></html>"


@pytest.fixture
def client() -> Client:
    return Client().with_token("token-0")


# --- what is asked -----------------------------------------------------------------------------------------------


def test_the_jobs_of_a_series_are_asked_for_by_one_get_with_the_token(client: Client) -> None:
    talk = client.get_jobs(reply(sample("status-completed")))
    (request,) = talk.requests
    assert (request.method, request.url, request.body) == ("GET", STATUS_URL, None)
    assert dict(request.headers) == {"Accept": "application/json", TOKEN_HEADER: "token-0"}
    assert (request.is_safe, request.needs_token, request.stream) == (True, True, False)
    assert [job.job_id for job in talk.value] == [4455, 4456, 4457]
    assert talk.kinds == ["SendRequest"]


def test_the_sample_of_an_empty_series_is_an_empty_list(client: Client) -> None:
    assert client.get_jobs(reply(sample("status-empty"))).value == []


def test_the_answer_of_the_sibling_endpoint_is_read_as_having_no_redeem_jobs(client: Client) -> None:
    assert client.get_jobs(reply(sample("coupon-upload-status-finished"))).value == []


def raw_job(job_id: int, status: str = "COMPLETED") -> dict[str, Any]:
    return {"jobId": job_id, "uploadRedeemedCouponStatus": status}


def test_a_history_that_did_not_change_is_the_same_object(client: Client) -> None:
    jobs = [raw_job(1), raw_job(2, "STARTED")]
    first = client.run(client.api.get_upload_history(REDEEM, 909234), jobs_reply(*jobs)).value
    assert [job.job_id for job in first.newest_first] == [2, 1]

    for again in (jobs_reply(*jobs), jobs_reply(*reversed(jobs))):
        assert client.run(client.api.get_upload_history(REDEEM, 909234, first), again).value is first

    changed = jobs_reply(raw_job(1), raw_job(2))
    second = client.run(client.api.get_upload_history(REDEEM, 909234, first), changed).value
    assert second is not first
    assert second.newest().is_completed


def test_an_error_is_one_with_any_body(client: Client) -> None:
    reported = jobs_reply(raw_job(1))
    before = client.run(client.api.get_upload_history(REDEEM, 909234), reported).value
    for status, error in ((300, CapillaryResponseError), (400, CapillaryApiError)):
        refused = Response(status, reported.headers, reported.body)
        asked = client.run(client.api.get_upload_history(REDEEM, 909234, before), refused)
        assert type(asked.error) is error


def test_the_zone_of_the_connection_dates_the_jobs() -> None:
    client = Client(settings(extra={"cluster_timezone": "Asia/Kolkata"})).with_token()
    jobs = client.get_jobs(reply(sample("status-completed"))).value
    assert jobs[0].to_dict()["created_on"] == "2020-10-20T00:00:00+05:30"


@pytest.mark.parametrize("host", [f"{API}/", f"{API}//", "EU.api.capillarytech.com", f"{API}:443", f"{API}."])
def test_however_the_host_is_written_the_path_begins_with_one_slash(host: str) -> None:
    client = Client(settings(host=host))
    talk = client.get_jobs(token_reply(), reply(sample("status-empty")))
    assert [request.url for request in talk.requests] == [TOKEN_URL, STATUS_URL]
    assert talk.requests[1].headers[TOKEN_HEADER] == "token-1"


def test_another_port_is_part_of_every_url() -> None:
    client = Client(settings(host="http://localhost", port=8080)).with_token()
    (request,) = client.get_jobs(reply(sample("status-empty"))).requests
    assert request.url == "http://localhost:8080/coupon/api/v1/upload/getUploadRedeemedCouponStatus/909234"


def test_another_token_header_can_be_set() -> None:
    client = Client(settings(extra={"auth_header_name": "CAP-API-ACCESS-TOKEN"})).with_token("token-0")
    (request,) = client.get_jobs(reply(sample("status-empty"))).requests
    assert dict(request.headers) == {"Accept": "application/json", "CAP-API-ACCESS-TOKEN": "token-0"}


def test_one_job_is_found_among_all_of_its_series(client: Client) -> None:
    talk = client.run(client.api.get_upload_job(REDEEM, 909234, 4456), reply(sample("status-completed")))
    assert isinstance(talk.value, UploadJob)
    assert talk.value.job_id == 4456


def test_each_kind_of_upload_is_requested_by_its_own_path_and_read_by_its_own_fields(client: Client) -> None:
    answers = {REDEEM: ("status-completed", 4456), COUPON: ("coupon-upload-status-finished", 220605)}
    for kind, (name, job_id) in answers.items():
        talk = client.run(client.api.get_upload_job(kind, 909234, job_id), reply(sample(name)))
        assert talk.requests[0].url == f"{API}{kind.status_path.format(coupon_series_id=909234)}"
        assert talk.value.job_id == job_id

        talk = client.run(client.api.get_upload_jobs(kind, 909234), reply(sample(name)))
        assert job_id in [job.job_id for job in talk.value]


def test_a_coupon_job_that_is_not_in_the_series_is_named_as_one(client: Client) -> None:
    talk = client.run(client.api.get_upload_job(COUPON, 909234, 4456), reply(sample("status-completed")))
    with pytest.raises(CapillaryJobNotFoundError, match="coupon series 909234 has no coupon upload job 4456;"):
        talk.value  # noqa: B018


def test_an_id_that_is_no_number_is_refused_by_name_and_nothing_is_sent(client: Client) -> None:
    for flow, name in (
        (client.api.get_upload_job(REDEEM, 909234, "{{ job }}"), "job_id"),
        (client.api.get_upload_job(REDEEM, "{{ series }}", 1), "coupon_series_id"),
        (client.api.get_upload_jobs(REDEEM, "{{ series }}"), "coupon_series_id"),
    ):
        talk = client.run(flow)
        assert type(talk.error) is CapillaryConfigurationError
        assert talk.error.message.startswith(f"{name} must be a positive whole number")


def test_a_job_that_is_not_in_the_series_is_an_error_that_names_both(client: Client) -> None:
    talk = client.run(client.api.get_upload_job(REDEEM, 909234, 1), reply(sample("status-completed")))
    with pytest.raises(
        CapillaryJobNotFoundError, match="coupon series 909234 has no redeem upload job 1; check both ids and the kind"
    ):
        talk.value  # noqa: B018


# --- headers go to the API host only -----------------------------------------------------------------------------


def test_extra_headers_go_to_the_api_host_with_every_request() -> None:
    client = Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}}))
    talk = client.get_jobs(token_reply(), reply(sample("status-empty")))
    assert [request.headers.get("X-Org") for request in talk.requests] == [HEADER_VALUE, HEADER_VALUE]
    assert [request.headers.get(TOKEN_HEADER) for request in talk.requests] == [None, "token-1"]


@pytest.mark.parametrize(
    "auth_url",
    [
        "https://auth.example.com/v3/oauth/token/generate",
        f"{API}:8443/v3/oauth/token/generate",
        "http://eu.api.capillarytech.com/v3/oauth/token/generate",
        "https://eu.api.capillarytech.com.example.com/v3/oauth/token/generate",
    ],
    ids=["host", "port", "scheme", "suffix"],
)
def test_an_authentication_url_elsewhere_gets_neither_token_nor_extra_headers(auth_url: str) -> None:
    extra = {"headers": {"X-Org": HEADER_VALUE}, "auth_url": auth_url, "allow_http": True}
    client = Client(settings(extra=extra))
    talk = client.get_jobs(token_reply(), reply(sample("status-empty")))
    assert talk.requests[0].url == auth_url
    assert dict(talk.requests[0].headers) == {"Accept": "application/json", "Content-Type": "application/json"}
    assert talk.requests[1].headers["X-Org"] == HEADER_VALUE


def test_an_extra_header_never_replaces_what_a_request_needs() -> None:
    extra = {"content-type": "text/csv", "ACCEPT": "text/html", "user-agent": "brand/1"}
    client = Client(settings(extra={"headers": extra}))
    token, status = client.get_jobs(token_reply(), reply(sample("status-empty"))).requests
    assert token.headers == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "user-agent": "brand/1",
    }
    assert status.headers == {
        "Accept": "application/json",
        "content-type": "text/csv",
        "user-agent": "brand/1",
        TOKEN_HEADER: "token-1",
    }


# --- trying again ------------------------------------------------------------------------------------------------


def test_exactly_the_statuses_of_the_retry_set_are_tried_again() -> None:
    tried_again = set()
    for status in range(300, 600):
        client = Client(retry=HttpRetry(max_attempts=2)).with_token()
        talk = client.start(client.api.get_upload_jobs(REDEEM, 1)).run(reply(b"", status))
        if talk.waits:
            tried_again.add(status)
    assert tried_again == {408, 425, 429, 461, 500, 502, 503, 504, *range(520, 527)}


def test_exactly_the_codes_of_the_retry_set_are_tried_again_under_http_200() -> None:
    tried_again = set()
    for code in (*range(400, 600), 4000, 4001, 4002, 320001):
        client = Client(retry=HttpRetry(max_attempts=2)).with_token()
        talk = client.start(client.api.get_upload_jobs(REDEEM, 1)).run(reply(coupon(code)))
        if talk.waits:
            tried_again.add(code)
    assert tried_again == {408, 425, 429, 461, 500, 502, 503, 504, 4001}


@pytest.mark.parametrize(
    "passing",
    [
        LOST,
        reply(b"", 200),
        reply(b"{}", 200),
        reply(HTML, 200),
        reply("OK", 200, content_type="text/plain"),
        reply(b'{"success": true, "status": 200, "result": {"redeemUploadJobSta', 200),
        reply([], 200),
        reply(None, 200),
        reply({"success": True, "status": 200}, 200),
        reply({"success": True, "status": 200, "result": None}, 200),
        reply({"success": True, "status": 200, "result": {"redeemUploadJobStatuses": {}}}, 200),
        reply(b"", 204),
        reply(b"{}", 500),
        reply("Unable to post or retrieve details.", 500, content_type="text/plain"),
        reply(v2(4001), 503),
        reply(b"", 461),
        reply(HTML, 521, content_type="text/html"),
        reply(coupon("503"), 200),
    ],
    ids=lambda passing: repr(passing)[:40],
)
def test_a_transient_error_is_retried(client: Client, passing: Response | TransportFailure) -> None:
    talk = client.get_jobs(passing, passing, reply(sample("status-empty")))
    assert talk.value == []
    assert talk.kinds == ["SendRequest", "Sleep", "SendRequest", "Sleep", "SendRequest"]
    assert len({repr(request) + repr(dict(request.headers)) for request in talk.requests}) == 1


@pytest.mark.parametrize(
    ("lasting", "error"),
    [
        (reply("Incorrect or invalid input.", 400), CapillaryApiError),
        (reply(b"{}", 400), CapillaryApiError),
        (reply(b"", 404), CapillaryResponseError),
        (reply(HTML, 405), CapillaryResponseError),
        (reply(coupon(404), 404), CapillaryApiError),
        (reply(b"", 415), CapillaryApiError),
        (reply(coupon(521), 200), CapillaryApiError),
        (reply({"success": False, "message": "no"}, 200), CapillaryApiError),
        (reply(HTML, 403, content_type="text/html"), CapillaryApiError),
        (reply(b"", 302, location="/login"), CapillaryResponseError),
        (TransportFailure("the certificate is not trusted", is_transient=False), CapillaryTransportError),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_lasting_fault_is_raised_at_once(
    client: Client, lasting: Response | TransportFailure, error: type[CapillaryError]
) -> None:
    talk = client.get_jobs(lasting)
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is error
    assert talk.error.is_transient is False


def test_after_five_attempts_the_last_error_is_raised(client: Client) -> None:
    talk = client.get_jobs(LOST, LOST, LOST, LOST, reply(b"", 503, x_cap_request_id="req-5"))
    assert talk.kinds == ["SendRequest", "Sleep"] * 4 + ["SendRequest"]
    assert str(talk.error) == "Capillary answered with an error (HTTP 503, X-CAP-REQUEST-ID req-5)"
    assert talk.error is not None
    assert talk.error.is_transient is True


def test_the_waits_are_drawn_from_a_doubling_range() -> None:
    drawn = iter([0.0, 0.25, 0.5, 0.999])
    client = Client(random=lambda: next(drawn)).with_token()
    talk = client.get_jobs(LOST, LOST, LOST, LOST, reply(sample("status-empty")))
    assert talk.waits == [0.0, 0.5, 2.0, 7.992]


def test_no_wait_of_our_own_is_above_the_cap() -> None:
    retry = HttpRetry(max_attempts=12, base_seconds=1, cap_seconds=5)
    client = Client(retry=retry, random=lambda: 1.0).with_token()
    talk = client.get_jobs(*[LOST] * 12)
    assert talk.waits == [1, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("status", [429, 503, 500, 461])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "86400"}, 120.0),
        ({"retry_after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry_after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry_after": "Mon, 01 Mar 2027 12:00:00 GMT"}, 120.0),
        ({"retry_after": "Tue, 07 Jan 2020 10:00:20 GMT", "date": "Tue, 07 Jan 2020 10:00:00 GMT"}, 20.0),
        ({"retry_after": "soon"}, 0.5),
        ({}, 0.5),
    ],
    ids=str,
)
def test_retry_after_is_obeyed_up_to_the_cap(status: int, headers: dict[str, str], seconds: float) -> None:
    client = Client(random=lambda: 0.5, now=datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)).with_token()
    talk = client.get_jobs(reply(b"", status, **headers), reply(sample("status-empty")))
    assert talk.waits == [seconds]


def test_a_rate_limit_holds_back_everyone_on_the_connection(client: Client) -> None:
    refused = client.start(client.api.get_upload_jobs(REDEEM, 1)).give(reply(b"", 429, retry_after="20"))
    other = client.start(client.api.get_upload_jobs(REDEEM, 2))
    assert other.pending is not None
    assert (other.kinds, other.waits) == (["Sleep"], [20.0])
    other.run(reply(sample("status-empty")))
    assert refused.run(reply(sample("status-empty"))).value == []


def test_other_faults_hold_back_only_who_met_them(client: Client) -> None:
    client.start(client.api.get_upload_jobs(REDEEM, 1)).give(reply(b"", 503, retry_after="20"))
    assert client.start(client.api.get_upload_jobs(REDEEM, 2)).kinds == ["SendRequest"]


def test_a_rate_limit_that_lasts_is_an_error_of_its_own(client: Client) -> None:
    talk = client.get_jobs(*[reply(b"", 429)] * 5)
    assert type(talk.error) is CapillaryRateLimitError
    assert talk.error.http_status == 429


def test_requests_beyond_the_limit_are_spaced() -> None:
    client = Client(requests_per_minute=1).with_token()
    kinds = [client.get_jobs(reply(sample("status-empty"))).kinds for _ in range(3)]
    assert kinds == [["SendRequest"], ["Sleep", "SendRequest"], ["Sleep", "SendRequest"]]
    assert client.clock.now == 1_000.0 + 120.0


def test_a_wait_of_less_than_a_second_for_the_limit_is_not_skipped() -> None:
    client = Client(requests_per_minute=600).with_token()
    waits = [client.get_jobs(reply(sample("status-empty"))).waits for _ in range(70)]
    assert waits[:60] == [[]] * 60
    assert all(0 < pause < 1 for (pause,) in waits[60:])


def test_attempts_count_against_the_limit_too() -> None:
    client = Client(requests_per_minute=1, random=lambda: 0.0).with_token()
    talk = client.get_jobs(LOST, reply(sample("status-empty")))
    assert talk.kinds == ["SendRequest", "Sleep", "Sleep", "SendRequest"]
    assert talk.waits == [0.0, 60.0]


# --- what must not be sent twice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "got", [LOST, reply(b"", 500), reply(b"", 503), reply(b"", 429), reply(b"", 200), reply(HTML), reply(b"{}", 521)]
)
def test_a_request_that_is_not_safe_is_never_sent_twice(client: Client, got: Response | TransportFailure) -> None:
    upload = ApiRequest("POST", f"{API}/coupon/api/v1/upload/redeemFile/1", is_safe=False, needs_token=True)
    talk = client.run(client.api.send(upload, partial(client.api._read_jobs, REDEEM)), got)
    assert talk.kinds == ["SendRequest"]
    assert talk.error is not None
    assert talk.error.is_transient is True


def test_a_request_that_is_not_safe_is_sent_once_more_after_a_refused_token_for_nothing_was_done(
    client: Client,
) -> None:
    upload = ApiRequest("POST", f"{API}/coupon/api/v1/upload/redeemFile/1", is_safe=False, needs_token=True)
    talk = client.run(
        client.api.send(upload, partial(client.api._read_jobs, REDEEM)),
        reply(b"", 401),
        token_reply(),
        reply(sample("redeem-upload-queued")),
    )
    assert [job.job_id for job in talk.value] == [9137]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_secret_is_not_posted_again_where_a_redirect_points(status: int) -> None:
    talk = Client().get_jobs(reply(b"", status, location="https://evil.example.com/v3/oauth/token/generate"))
    (request,) = talk.requests
    assert request.url == TOKEN_URL
    assert type(talk.error) is CapillaryResponseError
    assert "evil" not in str(talk.error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_an_api_call_is_refused(client: Client, status: int) -> None:
    talk = client.get_jobs(reply(b"", status, location=f"{API}/elsewhere"))
    assert len(talk.requests) == 1
    assert type(talk.error) is CapillaryResponseError
    assert talk.error.http_status == status


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["x_cap_request_id", "x_cap_requestid"])
def test_an_error_shows_status_code_message_and_request_id(client: Client, header: str) -> None:
    talk = client.get_jobs(reply(coupon("604", "No such series"), 400, **{header: "req-9"}))
    assert str(talk.error) == (
        "Capillary answered with an error: No such series (HTTP 400, code 604, X-CAP-REQUEST-ID req-9)"
    )


def test_a_lost_response_is_reported_with_method_and_url_but_no_query() -> None:
    extra = {"auth_url": "https://auth.example.com/token?hint=hint-secret"}
    talk = Client(settings(extra=extra)).get_jobs(TransportFailure("a timeout", is_transient=False))
    assert str(talk.error) == "POST https://auth.example.com/token: a timeout"


def echo(request: ApiRequest) -> Response:
    """A server that repeats all it was sent."""
    said = [*request.headers.values(), (request.body or b"").decode()]
    return reply(coupon(400, "You sent " + " ".join(said)), 400, x_cap_request_id="req-1")


def shown_by(talk: Conversation) -> str:
    assert talk.error is not None
    return str(talk.error) + repr(talk.error) + json.dumps(talk.error.to_dict()) + repr(talk.error.__cause__)


def test_an_echo_of_the_secret_is_not_repeated() -> None:
    client = Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}}))
    shown = shown_by(client.get_jobs(echo))
    assert "You sent" in shown
    assert [each for each in (SECRET, HEADER_VALUE) if each in shown] == []


def test_an_echo_of_the_token_is_not_repeated() -> None:
    client = Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}})).with_token("token-zq0815")
    shown = shown_by(client.get_jobs(echo))
    assert "You sent" in shown
    assert [each for each in ("token-zq0815", HEADER_VALUE) if each in shown] == []


def test_an_echo_of_a_token_that_the_request_itself_fetched_is_not_repeated() -> None:
    shown = shown_by(Client().get_jobs(token_reply("token-zq0815"), echo))
    assert "You sent" in shown
    assert "token-zq0815" not in shown


def test_an_echo_of_the_token_by_the_download_is_not_repeated() -> None:
    client = Client().with_token("token-zq0815")
    talk = client.run(read_file(client.api, DownloadSource("x")), echo)
    assert "token-zq0815" not in shown_by(talk)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_echo_of_a_signature_is_not_repeated(status: int) -> None:
    extra = {"error_file_url": f"{API}/files/{{handle}}?key=template-key-zq", "auth_url": f"{API}/t?apikey=auth-key-zq"}
    client = Client(settings(extra=extra)).with_token()
    says = coupon(400, "no access with %2Bsignature-zq or +signature-zq, template-key-zq, auth-key-zq")
    source = UrlSource(f"{API}/files/x?sig=%2Bsignature-zq")
    shown = shown_by(client.start(read_file(client.api, source)).run_with(lambda request: reply(says, status)))
    assert "no access" in shown
    assert "zq" not in shown


def test_no_step_shows_a_secret() -> None:
    client = Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}}))
    talk = client.get_jobs(token_reply("token-zq0815"), LOST, reply(sample("status-empty")))
    shown = "".join(map(repr, talk.steps))
    assert [each for each in (KEY, SECRET, HEADER_VALUE, "token-zq0815") if each in shown] == []


# --- anything ----------------------------------------------------------------------------------------------------

faults = st.builds(TransportFailure, st.just("lost"), st.booleans())
conversations: dict[str, Callable[[Client], Any]] = {
    "jobs": lambda client: client.api.get_upload_jobs(REDEEM, 1),
    "job": lambda client: client.api.get_upload_job(REDEEM, 1, 2),
    "token": lambda client: client.api.get_token(),
    "url": lambda client: read_file(client.api, UrlSource("https://files.example.com/x")),
    "own url": lambda client: read_file(client.api, UrlSource(f"{API}/x")),
    "download": lambda client: read_file(client.api, DownloadSource("x")),
}


@examples(100)
@given(
    st.sampled_from(sorted(conversations)),
    st.lists(st.one_of(answers, answers, faults, st.just(token_reply())), min_size=1, max_size=6),
    st.booleans(),
)
def test_for_any_response_a_flow_ends_in_a_value_or_in_an_error_of_ours(
    name: str, script: list[Response | TransportFailure], has_token: bool
) -> None:
    client = Client()
    if has_token:
        client.with_token()
    talk = client.start(conversations[name](client))
    script_again = itertools.cycle(script)
    talk.run_with(lambda request: next(script_again), steps=1_000)
    if talk.error is None:
        assert isinstance(talk.value, list | UploadJob | Token | None)
    else:
        assert SECRET not in shown_by(talk)
    # Whoever comes next is not left waiting for a fetch that nobody carries out.
    assert "AwaitToken" not in client.start(client.api.get_token()).kinds


@examples(100)
@given(st.lists(st.sampled_from([200, 401, 498, 429, 500, 503]), min_size=1, max_size=30))
def test_every_exchange_is_bounded(statuses: list[int]) -> None:
    client = Client().with_token()
    talk = client.start(client.api.get_upload_jobs(REDEEM, 1))
    for status in (status for _ in range(10) for status in statuses):
        if talk.run().is_over:
            break
        assert isinstance(talk.pending, SendRequest)
        is_token_call = talk.pending.request.url == TOKEN_URL
        talk.give(token_reply() if is_token_call else reply(v11(status) if status == 401 else b"", status))
    assert talk.run().is_over
    assert len([request for request in talk.requests if request.url == STATUS_URL.replace("909234", "1")]) <= 6


def test_a_job_list_survives_one_refusal_and_four_faults(client: Client) -> None:
    # The refusal does not count as one of the five attempts.
    talk = client.get_jobs(
        LOST,
        LOST,
        reply(b"", 401),
        token_reply(),
        LOST,
        LOST,
        jobs_reply({"jobId": 1, "uploadRedeemedCouponStatus": "X"}),
    )
    assert [job.job_id for job in talk.value] == [1]
