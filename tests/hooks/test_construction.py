# SPDX-License-Identifier: Apache-2.0
"""Making a hook costs nothing: it is done while DAG files are parsed, and inside triggers."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryJobNotFoundError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from tests.airflow_compat import AirflowNotFoundException
from tests.hooks.clients import CONN_ID, SERIES, TOKEN_HEADER

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect, Logged, Watch


def test_a_hook_is_made_without_its_connection_and_without_the_network(client: Client, watch: Watch) -> None:
    made = client.hook_class("this_connection_does_not_exist")

    assert made.capillary_conn_id == "this_connection_does_not_exist"
    assert watch.events == []


def test_a_blocking_hook_sends_nothing_until_it_is_asked(sandbox: Sandbox, conn_id: str, watch: Watch) -> None:
    hook = CapillaryHook(conn_id)
    assert hook.settings.host == "127.0.0.1"
    with hook.get_conn():
        pass
    assert watch.of("socket.connect", "socket.getaddrinfo") == []
    assert sandbox.counts == {}


def test_an_awaited_hook_sends_nothing_when_it_is_opened(
    sandbox: Sandbox, conn_id: str, client: Client, watch: Watch
) -> None:
    with client.opened(conn_id):
        pass
    assert watch.of("socket.connect", "socket.getaddrinfo") == []
    assert sandbox.counts == {}


def test_an_awaited_hook_reads_no_connection_until_it_is_opened(sandbox: Sandbox, connect: Connect) -> None:
    hook = CapillaryAsyncHook(CONN_ID)
    connect(sandbox)  # only now is there a connection

    async def ask() -> list[Any]:
        async with hook:
            return await hook.get_redeem_upload_jobs(SERIES)

    assert asyncio.run(ask()) == []


def test_a_connection_that_does_not_exist_is_named(client: Client) -> None:
    with pytest.raises(AirflowNotFoundException, match="no_such_connection"):
        client.jobs("no_such_connection")


def test_a_connection_that_cannot_be_used_is_named_with_the_field(
    client: Client, sandbox: Sandbox, connect: Connect
) -> None:
    connect(sandbox, "half_done", fields={"password": None})
    with pytest.raises(CapillaryConfigurationError, match=r"'half_done'.*'Client secret'"):
        client.jobs("half_done")


def test_each_hook_returns_the_same_history_while_nothing_changed(
    client: Client, sandbox: Sandbox, conn_id: str
) -> None:
    first = sandbox.add_job(SERIES)

    with client.opened(conn_id) as hook:
        history = hook.history()
        unchanged = hook.history(str(SERIES), history)
        second = sandbox.add_job(SERIES)
        changed = hook.history(before=history)

    assert [job.job_id for job in history.newest_first] == [first.job_id]
    assert unchanged is history
    assert [job.job_id for job in changed.newest_first] == [second.job_id, first.job_id]
    assert sandbox.count("status") == 3


def test_the_connection_is_read_once_per_blocking_hook(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox)
    hook = CapillaryHook(CONN_ID)
    hook.get_redeem_upload_jobs(SERIES)
    monkeypatch.delenv("AIRFLOW_CONN_CAPILLARY_DEFAULT")
    assert hook.get_redeem_upload_jobs(SERIES) == []


def test_both_hooks_are_made_by_the_same_arguments() -> None:
    blocking, awaited = (inspect.signature(each.__init__) for each in (CapillaryHook, CapillaryAsyncHook))
    assert list(blocking.parameters) == list(awaited.parameters)
    assert blocking.parameters["capillary_conn_id"].default == awaited.parameters["capillary_conn_id"].default
    assert blocking.parameters["capillary_conn_id"].default == "capillary_default"


def test_airflow_finds_what_it_needs_on_the_class(client: Client) -> None:
    found = client.hook_class
    assert (found.conn_name_attr, found.default_conn_name) == ("capillary_conn_id", "capillary_default")
    assert (found.conn_type, found.hook_name) == ("capillary", "Capillary")


def test_an_awaited_hook_that_is_not_open_says_how_to_open_it(sandbox: Sandbox, conn_id: str) -> None:
    hook = CapillaryAsyncHook(conn_id)
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(hook.get_redeem_upload_jobs(SERIES))

    async def ask_too_late() -> None:
        async with hook:
            pass
        await hook.get_redeem_upload_job(SERIES, 1)

    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(ask_too_late())
    assert sandbox.counts == {}


def test_an_awaited_hook_can_be_opened_again(sandbox: Sandbox, conn_id: str) -> None:
    hook = CapillaryAsyncHook(conn_id)

    async def ask() -> list[Any]:
        async with hook:
            return await hook.get_redeem_upload_jobs(SERIES)

    sandbox.add_job(SERIES)
    assert [len(asyncio.run(ask())) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("series", [SERIES, str(SERIES), f" {SERIES} "])
def test_ids_may_be_numbers_or_text(client: Client, sandbox: Sandbox, conn_id: str, series: int | str) -> None:
    job = sandbox.add_job(SERIES, errors=2)
    (found,) = client.jobs(conn_id, series=series)
    assert (found.job_id, found.coupon_series_id, found.error_count) == (job.job_id, SERIES, 2)
    assert client.job(series, str(job.job_id), conn_id=conn_id) == found


@pytest.mark.parametrize("series", [0, -1, "", "abc", "1/../2", None, 1.5, True])
def test_what_is_no_id_is_refused_before_anything_is_sent(
    client: Client, sandbox: Sandbox, conn_id: str, series: Any
) -> None:
    with pytest.raises(CapillaryConfigurationError, match="coupon_series_id"):
        client.jobs(conn_id, series=series)
    with pytest.raises(CapillaryConfigurationError, match="job_id"):
        client.job(SERIES, series, conn_id=conn_id)
    assert sandbox.counts == {}


def test_plain_http_to_another_machine_is_warned_about(
    client: Client, sandbox: Sandbox, connect: Connect, logged: Logged
) -> None:
    # Opening is enough for the warning: nothing is sent to that name.
    connect(sandbox, "in_the_clear", fields={"host": "http://gateway.example.test"}, allow_http=True)
    with client.opened("in_the_clear") as opened:
        if not client.is_async:
            assert opened.hook.settings.is_plain_http
    assert "'in_the_clear'" in logged.text
    assert "plain http to gateway.example.test" in logged.text


def test_extras_that_mean_nothing_are_warned_about_without_their_values(
    client: Client, sandbox: Sandbox, connect: Connect, logged: Logged
) -> None:
    connect(sandbox, "misspelt", timeout_secnods=12345, verfy="/private/place")
    client.jobs("misspelt")
    text = logged.text
    assert "timeout_secnods, verfy" in text
    assert "12345" not in text
    assert "/private/place" not in text


def test_a_good_connection_gives_no_warning(client: Client, conn_id: str, logged: Logged) -> None:
    client.jobs(conn_id)
    assert "warning" not in logged.text.lower().replace("_warnings", "")


def test_an_answer_survives_the_way_through_json_and_pickle(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    sandbox.add_job(SERIES, errors=1)
    (job,) = client.jobs(conn_id)
    assert type(job).from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert pickle.loads(pickle.dumps(job)) == copy.deepcopy(job) == job


def test_each_kind_of_upload_has_questions_of_its_own(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    jobs = {
        kind: sandbox.add_job(SERIES, rows=9, errors=errors, kind=kind)
        for kind, errors in (("redeem", 1), ("coupon", 2))
    }
    with client.opened() as opened:
        for kind, job in jobs.items():
            (listed,) = opened.wait(getattr(opened.hook, f"get_{kind}_upload_jobs")(SERIES))
            assert (listed.job_id, listed.error_count, listed.is_completed) == (job.job_id, job.errors, True)
            assert opened.wait(getattr(opened.hook, f"get_{kind}_upload_job")(SERIES, str(job.job_id))) == listed
            with pytest.raises(CapillaryJobNotFoundError, match=f"coupon series {SERIES} has no {kind} upload job 8;"):
                opened.wait(getattr(opened.hook, f"get_{kind}_upload_job")(SERIES, 8))
            if client.is_async:
                history = opened.wait(getattr(opened.hook, f"get_{kind}_upload_history")(SERIES))
                assert history.get(job.job_id) == listed
                again = opened.wait(getattr(opened.hook, f"get_{kind}_upload_history")(SERIES, history))
                assert again is history


def test_questions_go_to_the_documented_paths_with_the_token(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    client.jobs(conn_id)
    token, status = sandbox.requests
    assert (token.method, token.path) == ("POST", "/v3/oauth/token/generate")
    assert json.loads(token.body) == {"key": "sandbox-key", "secret": "sandbox-secret"}
    assert token.headers["Content-Type"] == token.headers["Accept"] == "application/json"
    assert TOKEN_HEADER not in token.headers
    assert (status.method, status.path, status.query) == (
        "GET",
        f"/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{SERIES}",
        "",
    )
    assert status.headers[TOKEN_HEADER] == sandbox.tokens_issued[0]
    assert "Authorization" not in status.headers


@pytest.mark.parametrize("conn_id", [None, "", " ", "None", "null", 5])
def test_the_id_of_a_connection_that_is_none_is_refused_by_name(client: Client, conn_id: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"^capillary_conn_id "):
        client.hook_class(conn_id)


def test_an_ipv6_host_of_a_connection_uri_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow hands it on without its brackets.
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", "capillary://key:secret-77kx@[fd00::17]:8443")
    assert CapillaryHook().settings.base_url == "https://[fd00::17]:8443"


def test_the_path_of_a_connection_uri_is_warned_about(monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    # Airflow hands it on as the schema.
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", "capillary://key:secret-77kx@eu.api.example.test/coupon")
    assert CapillaryHook().settings.base_url == "https://eu.api.example.test"
    assert "Connection 'capillary_default' has fields that mean nothing here: schema" in logged.text
