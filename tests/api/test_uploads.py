# SPDX-License-Identifier: Apache-2.0
"""When a file is sent, when the status list is searched, and what becomes of a lost answer. No time passes here."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryUploadError,
)
from airflow_provider_capillary.api.http_messages import ApiRequest, FileForm, Response, TransportFailure
from airflow_provider_capillary.api.job_history import read_history
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM, UploadKind
from airflow_provider_capillary.api.uploads import (
    Upload,
    UploadLookup,
    find_uploads,
    form_fields,
    jobs_of_file,
    part_names,
    send_upload,
    upload_once,
)
from tests.api.flows import API, Client, coupon, reply, sample, v11

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERIES = 535512
LOOKUP = UploadLookup()
NAME = "redeemed-1of2-0123456789abcdef01234567.csv"
RESET = TransportFailure("the connection broke off")
LOST: dict[str, Response | TransportFailure] = {
    "timeout": TransportFailure("no answer within 30 seconds"),
    "reset": RESET,
    "http_500": reply({}, 500),
    "http_502_of_the_edge": reply("<html></html>", 502),
    "http_503": reply(coupon(503), 503),
    "cut_body": reply(b'{"success": true, "result": {"redeem', 200),
    "empty_body": reply(b"", 200),
    "no_job": reply({"success": True, "status": 200, "result": {"redeemUploadJobStatuses": []}}),
}


@dataclass
class Capillary:
    """A server of uploads, whose list shows a job late.

    :param clock: The time.
    :param lag: Seconds until the list shows a job.
    :param answers: For each upload: what is sent in place of the answer, and whether a job is made.
    """

    clock: Callable[[], float]
    kind: UploadKind = REDEEM
    lag: float = 0.0
    answers: list[tuple[Response | TransportFailure | None, bool]] = field(default_factory=list)
    list_fails: bool = False
    jobs: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    uploads: list[ApiRequest] = field(default_factory=list)
    lists: int = 0

    def add(self, file_name: str) -> dict[str, Any]:
        stored = f"{file_name.removesuffix('.csv')}_1732000000000_{SERIES}.csv"
        job = {"jobId": 100 + len(self.jobs), self.kind.status_field: "QUEUED", "uploadedFileUrl": stored}
        self.jobs.append((self.clock() + self.lag, job))
        return job

    def __call__(self, request: ApiRequest) -> Response | TransportFailure:
        if request.form is None:
            self.lists += 1
            if self.list_fails and self.uploads:
                return reply({}, 500)
            return self._reply([job for visible_at, job in self.jobs if visible_at <= self.clock()])
        self.uploads.append(request)
        answer, is_made = self.answers.pop(0) if self.answers else (None, True)
        job = self.add(request.form.file_name) if is_made else None
        return self._reply([job] if job else [], file_name=request.form.file_name) if answer is None else answer

    def _reply(self, jobs: list[dict[str, Any]], **more: Any) -> Response:
        return reply({"success": True, "status": 200, "result": {self.kind.jobs_field: jobs, **more}})


@pytest.fixture
def client() -> Client:
    return Client().with_token()


@pytest.fixture
def capillary(client: Client) -> Capillary:
    return Capillary(client.clock)


def make_upload(kind: UploadKind = REDEEM, name: str = NAME) -> Upload:
    class Reader(io.BytesIO):
        len = 3

    @contextmanager
    def open_file() -> Iterator[Any]:
        yield Reader(b"a\n1")

    return Upload(kind, SERIES, FileForm({"customerIdentifier": "MOBILE"}, name, 3, open_file))


def send(client: Client, capillary: Capillary, *, lookup: UploadLookup = LOOKUP, **upload: Any) -> Any:
    return client.start(send_upload(client.api, make_upload(**upload), lookup=lookup)).run_with(capillary)


@pytest.mark.parametrize("kind", [COUPON, REDEEM], ids=lambda kind: kind.name)
def test_a_file_is_sent_as_a_form_to_the_path_of_its_kind(client: Client, kind: UploadKind) -> None:
    talk = send(client, Capillary(client.clock, kind), kind=kind)
    (request,) = talk.requests
    path = {"redeem": "redeemFile", "coupon": "file"}[kind.name]
    assert (request.method, request.url) == ("POST", f"{API}/coupon/api/v1/upload/{path}/{SERIES}")
    assert isinstance(request.form, FileForm)
    assert (request.form.file_name, request.form.fields) == (NAME, {"customerIdentifier": "MOBILE"})
    assert not request.is_safe
    assert talk.value.job_id == 100


def test_the_job_of_the_official_sample_is_found_by_the_name_in_the_answer(client: Client) -> None:
    talk = client.run(send_upload(client.api, make_upload(), lookup=LOOKUP), reply(sample("redeem-upload-queued")))
    assert talk.value.job_id == 9137


def test_of_an_answer_that_lists_earlier_jobs_the_one_of_the_file_is_taken(client: Client) -> None:
    jobs = [
        {"jobId": 7, "uploadRedeemedCouponStatus": "COMPLETED", "uploadedFileUrl": "other_1732000000000_5.csv"},
        {"jobId": 5, "uploadRedeemedCouponStatus": "QUEUED", "uploadedFileUrl": "mine_1732000000000_5.csv"},
    ]
    answer = reply({"success": True, "result": {"redeemUploadJobStatuses": jobs, "fileName": None}})
    assert client.run(send_upload(client.api, make_upload(name="mine.csv"), lookup=LOOKUP), answer).value.job_id == 5


def test_of_an_answer_that_names_no_file_the_newest_job_is_taken(client: Client) -> None:
    jobs = [{"jobId": job_id, "uploadRedeemedCouponStatus": "QUEUED"} for job_id in (7, 9, 8)]
    answer = reply({"success": True, "result": {"redeemUploadJobStatuses": jobs}})
    assert client.run(send_upload(client.api, make_upload(), lookup=LOOKUP), answer).value.job_id == 9


@pytest.mark.parametrize("lost", sorted(LOST))
def test_an_answer_lost_after_the_job_was_made_sends_nothing_again(
    client: Client, capillary: Capillary, lost: str
) -> None:
    capillary.answers = [(LOST[lost], True)]
    assert send(client, capillary).value.job_id == 100
    assert (len(capillary.uploads), len(capillary.jobs)) == (1, 1)


@pytest.mark.parametrize("lost", sorted(LOST))
def test_an_answer_lost_before_a_job_was_made_sends_again_after_the_lookup(
    client: Client, capillary: Capillary, lost: str
) -> None:
    capillary.answers = [(LOST[lost], False)]
    began = client.clock.now
    assert send(client, capillary).value.job_id == 100
    assert (len(capillary.uploads), len(capillary.jobs)) == (2, 1)
    assert client.clock.now - began >= LOOKUP.seconds


def test_a_list_that_lags_thirty_seconds_behind_makes_no_second_job(client: Client, capillary: Capillary) -> None:
    capillary.lag = 30.0
    capillary.answers = [(RESET, True)]
    assert send(client, capillary).value.job_id == 100
    assert (len(capillary.uploads), len(capillary.jobs)) == (1, 1)


def test_the_list_is_searched_in_intervals_until_the_lookup_ends(client: Client, capillary: Capillary) -> None:
    capillary.answers = [(RESET, False)]
    talk = send(client, capillary, lookup=UploadLookup(seconds=40))
    assert talk.waits == [10, 10, 10, 10]
    assert capillary.lists == 5


def test_each_request_has_a_lookup_of_its_own(client: Client, capillary: Capillary) -> None:
    capillary.lag = 30.0
    capillary.answers = [(RESET, False), (RESET, True)]
    assert send(client, capillary).value.job_id == 100
    assert (len(capillary.uploads), len(capillary.jobs)) == (2, 1)


def test_after_three_lost_answers_the_upload_fails_and_says_what_a_retry_does(
    client: Client, capillary: Capillary
) -> None:
    capillary.answers = [(RESET, False)] * 4
    talk = send(client, capillary)
    with pytest.raises(CapillaryUploadError, match=r"sent 3 times.*broke off.*a retry of the task searches") as caught:
        _ = talk.value
    assert caught.value.is_transient
    assert len(capillary.uploads) == 3


def test_nothing_is_sent_again_if_the_list_cannot_be_read(client: Client, capillary: Capillary) -> None:
    capillary.answers = [(RESET, False)]
    capillary.list_fails = True
    talk = send(client, capillary)
    with pytest.raises(CapillaryUploadError, match=r"answer to an upload was lost.*Nothing was sent again") as caught:
        _ = talk.value
    assert caught.value.is_transient
    assert len(capillary.uploads) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(coupon(400, "Incorrect or invalid input."), 400), CapillaryApiError),
        (reply(coupon(400, "Incorrect or invalid input."), 200), CapillaryApiError),
        (reply(v11(403), 403), CapillaryAccessError),
    ],
    ids=["http_400", "http_200_that_says_400", "http_403"],
)
def test_a_refusal_is_an_answer_and_not_sent_again(
    client: Client, capillary: Capillary, answer: Response, error: type[Exception]
) -> None:
    capillary.answers = [(answer, False)]
    talk = send(client, capillary)
    with pytest.raises(error):
        _ = talk.value
    assert (len(capillary.uploads), capillary.lists) == (1, 0)


def test_a_request_that_could_not_be_sent_at_all_is_not_looked_for(client: Client, capillary: Capillary) -> None:
    capillary.answers = [(TransportFailure("the certificate is not trusted", is_transient=False), False)]
    talk = send(client, capillary)
    assert talk.error is not None
    assert (len(capillary.uploads), capillary.lists) == (1, 0)


def test_an_expired_token_is_replaced_and_the_file_sent_with_the_new_one(client: Client, capillary: Capillary) -> None:
    tokens = iter(["token-1"])

    def server(request: ApiRequest) -> Response | TransportFailure:
        if request.url.endswith("/token/generate"):
            return reply({"data": {"accessToken": next(tokens), "ttlSeconds": 300}})
        if request.form is not None and "token-1" not in request.headers.values():
            return reply(v11(498), 498)
        return capillary(request)

    talk = client.start(send_upload(client.api, make_upload(), lookup=LOOKUP)).run_with(server)
    assert talk.value.job_id == 100
    assert len(capillary.jobs) == 1


def test_a_fresh_token_that_is_refused_ends_the_upload(client: Client) -> None:
    def server(request: ApiRequest) -> Response:
        if request.url.endswith("/token/generate"):
            return reply({"data": {"accessToken": "token-1", "ttlSeconds": 300}})
        return reply(v11(401), 401)

    talk = client.start(send_upload(client.api, make_upload(), lookup=LOOKUP)).run_with(server)
    with pytest.raises(CapillaryAuthError):
        _ = talk.value


class TestFindUploads:
    def find(self, client: Client, capillary: Capillary, *names: str, may_exist: bool) -> Any:
        flow = find_uploads(client.api, REDEEM, SERIES, names, lookup=UploadLookup(), may_exist=may_exist)
        return client.start(flow).run_with(capillary).value

    def test_asks_once_if_nothing_was_sent_before(self, client: Client, capillary: Capillary) -> None:
        assert self.find(client, capillary, "a.csv", may_exist=False) == {}
        assert capillary.lists == 1

    def test_searches_for_the_whole_time_if_something_may_have_been_sent(
        self, client: Client, capillary: Capillary
    ) -> None:
        began = client.clock.now
        assert self.find(client, capillary, "a.csv", may_exist=True) == {}
        assert client.clock.now - began == LOOKUP.seconds

    def test_ends_as_soon_as_all_are_there(self, client: Client, capillary: Capillary) -> None:
        capillary.add("a.csv")
        capillary.lag = 20.0
        capillary.add("b.csv")
        began = client.clock.now
        found = self.find(client, capillary, "a.csv", "b.csv", may_exist=True)
        assert {name: [job.job_id for job in jobs] for name, jobs in found.items()} == {"a.csv": [100], "b.csv": [101]}
        assert client.clock.now - began == 30.0

    def test_returns_those_that_are_there_when_the_time_is_over(self, client: Client, capillary: Capillary) -> None:
        capillary.add("b.csv")
        assert list(self.find(client, capillary, "a.csv", "b.csv", may_exist=True)) == ["b.csv"]

    def test_returns_all_jobs_of_a_file_the_oldest_first(self, client: Client, capillary: Capillary) -> None:
        for _ in range(2):
            capillary.add("a.csv")
        found = self.find(client, capillary, "a.csv", may_exist=False)
        assert [job.job_id for job in found["a.csv"]] == [100, 101]


def test_upload_once_sends_nothing_if_a_job_with_the_name_is_there(client: Client, capillary: Capillary) -> None:
    capillary.add(NAME)
    talk = client.start(upload_once(client.api, make_upload(), lookup=LOOKUP)).run_with(capillary)
    assert (talk.value.job_id, capillary.uploads) == (100, [])


def test_upload_once_sends_the_file_if_only_other_names_are_there(client: Client, capillary: Capillary) -> None:
    capillary.add("yesterday.csv")
    talk = client.start(upload_once(client.api, make_upload(), lookup=LOOKUP)).run_with(capillary)
    assert (talk.value.job_id, len(capillary.uploads)) == (101, 1)


@pytest.mark.parametrize(
    ("stored", "is_it"),
    [
        ("mine_1732000000000_535512.csv", True),
        ("MINE_1732000000000_535512.CSV", True),
        ("mine.csv", True),
        ("mine", True),
        ("mine_2_1732000000000_535512.csv", False),
        ("not-mine_1732000000000_535512.csv", False),
        ("mine_1732000000000_535512.csv.old", False),
        ("minex1732000000000_535512.csv", False),
    ],
)
def test_a_job_is_recognised_by_the_name_that_capillary_stores(stored: str, is_it: bool) -> None:
    job = {"jobId": 1, "uploadRedeemedCouponStatus": "QUEUED", "uploadedFileUrl": stored}
    history = read_history({"result": {"redeemUploadJobStatuses": [job]}}, REDEEM)
    assert bool(jobs_of_file(history, "mine.csv")) is is_it


def test_a_form_has_the_identifiers_and_the_columns_as_json() -> None:
    fields = form_fields(
        {"mobile": 1, "couponCode": 0}, customer_identifier="MOBILE", coupon_identifier="COUPON_CODE", details="night"
    )
    assert fields == {
        "customerIdentifier": "MOBILE",
        "couponIdentifier": "COUPON_CODE",
        "uploadHeaders": '{"mobile": 1, "couponCode": 0}',
        "Details": "night",
    }


def test_a_form_of_coupons_has_no_coupon_identifier() -> None:
    fields = form_fields({"couponCode": 0}, customer_identifier="NOT_TAGGED", coupon_identifier=None)
    assert sorted(fields) == ["customerIdentifier", "uploadHeaders"]


@pytest.mark.parametrize(
    ("stem", "tokens", "names"),
    [
        ("redeemed", ["a1"], ["redeemed-a1.csv"]),
        ("redeemed", ["a1", "b2"], ["redeemed-1of2-a1.csv", "redeemed-2of2-b2.csv"]),
        ("redeemed coupons/é", ["a1"], ["redeemed-coupons-a1.csv"]),
        ("...", ["a1"], ["upload-a1.csv"]),
        ("x" * 100, ["a1"], [f"{'x' * 60}-a1.csv"]),
    ],
)
def test_names_of_parts_have_letters_that_any_store_keeps(stem: str, tokens: list[str], names: list[str]) -> None:
    assert part_names(stem, tokens) == names
