# SPDX-License-Identifier: Apache-2.0
"""What Airflow's StatsD client sends to a StatsD server, and that nothing happens where metrics are off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._metrics import METRICS
from tests.metrics_child import CASES, SERIES
from tests.project import ROOT, text_of
from tests.statsd import Metric, StatsdServer, sums
from tests.transfers.running import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("statsd", reason="Airflow's extra statsd is not installed")

ENTRY_MODULES = (
    "exceptions",
    "hooks.capillary",
    "operators.capillary",
    "sensors.capillary",
    "triggers.capillary",
    "transfers.capillary_to_object_storage",
    "assets.capillary",
)


def run(*cases: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.metrics_child", *cases],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def everything() -> Iterator[list[Metric]]:
    """All metrics of the package that all cases send."""
    with StatsdServer() as server:
        run(*CASES, **server.environment)
        yield [metric for metric in server.received() if metric.name.startswith("airflow.capillary.")]


@pytest.fixture
def sent(request: pytest.FixtureRequest, everything: list[Metric]) -> list[Metric]:
    """The metrics of one case."""
    return [metric for metric in everything if metric.tags["conn_id"] == request.param]


def case(name: str) -> Any:
    return pytest.mark.parametrize("sent", [name], indirect=True)


def tags_of(metrics: list[Metric], name: str) -> list[dict[str, str]]:
    return [dict(metric.tags) for metric in metrics if metric.name == f"airflow.capillary.{name}"]


@case("poke")
class TestAWaitOnAWorker:
    def test_is_counted_with_its_polls_and_its_end(self, sent: list[Metric]) -> None:
        assert sums(sent) == {
            "capillary.waits_started": 1,
            "capillary.waits_ended": 1,
            "capillary.polls": 2,
            "capillary.poll_failures": 1,
            "capillary.token_fetches": 1,
        }

    def test_has_its_outcome_as_a_tag(self, sent: list[Metric]) -> None:
        assert tags_of(sent, "waits_ended") == [{"conn_id": "poke", "upload_kind": "redeem", "status": "failed"}]

    def test_has_the_error_of_a_failed_poll_as_a_tag(self, sent: list[Metric]) -> None:
        assert tags_of(sent, "poll_failures") == [
            {"conn_id": "poke", "upload_kind": "redeem", "error": "CapillaryApiError"}
        ]


@case("deferred")
def test_a_wait_in_the_triggerer_is_counted_once(sent: list[Metric]) -> None:
    assert sums(sent) == {
        "capillary.waits_started": 1,
        "capillary.waits_ended": 1,
        "capillary.polls": 1,
        "capillary.token_fetches": 1,
    }
    assert [tags["status"] for tags in tags_of(sent, "waits_ended")] == ["success"]


@case("rescheduled")
def test_a_wait_of_several_processes_is_counted_once(sent: list[Metric]) -> None:
    counts = sums(sent)

    assert counts["capillary.polls"] == 3
    assert (counts["capillary.waits_started"], counts["capillary.waits_ended"]) == (1, 1)


@pytest.mark.parametrize("sent", ["timed_out", "timed_out_softly"], indirect=True)
def test_a_wait_that_times_out_is_counted_as_such(sent: list[Metric]) -> None:
    assert [tags["status"] for tags in tags_of(sent, "waits_ended")] == ["timeout"]


@case("refused")
def test_a_request_that_capillary_refuses_as_too_many_is_counted(sent: list[Metric]) -> None:
    assert sums(sent)["capillary.rate_limited"] == 1


@case("limited")
def test_the_time_that_a_request_waits_for_the_limit_is_sent(sent: list[Metric]) -> None:
    (delay,) = [metric for metric in sent if metric.type == "ms"]

    assert delay.name == "airflow.capillary.request_delay"
    assert 300 < delay.value < 700  # a minute is divided among 91 requests


@case("watch")
def test_the_events_of_a_watcher_are_counted(sent: list[Metric]) -> None:
    assert sums(sent)["capillary.watcher_events"] == 1
    assert tags_of(sent, "watcher_events") == [{"conn_id": "watch", "upload_kind": "coupon"}]


@case("transfer")
def test_bytes_and_time_of_a_transfer_are_sent(sent: list[Metric]) -> None:
    assert sums(sent)["capillary.transfer_bytes"] == len(SMALL)
    (duration,) = [metric for metric in sent if metric.name == "airflow.capillary.transfer_duration"]
    assert duration.type == "ms"
    assert duration.value > 0
    assert dict(duration.tags) == {
        "conn_id": "transfer",
        "upload_kind": "redeem",
        "file_type": "error",
        "store": "file",
    }


@case("send")
def test_each_job_of_an_upload_is_counted_once_although_an_answer_is_lost(sent: list[Metric]) -> None:
    assert sums(sent)["capillary.upload_jobs"] == 2


def test_every_metric_is_sent_with_the_type_and_the_tags_that_are_declared(everything: list[Metric]) -> None:
    types = {"c": "counter", "ms": "timer"}
    found = {
        metric.name.removeprefix("airflow.capillary."): (types[metric.type], frozenset(metric.tags))
        for metric in everything
    }

    assert found == {name: (type_, frozenset(tags)) for name, (type_, tags) in METRICS.items()}


def test_neither_a_secret_nor_a_series_nor_a_row_is_sent(everything: list[Metric]) -> None:
    text = str(everything)

    assert "transfer_bytes" in text
    for absent in ("sandbox-key", "sandbox-secret", str(SERIES), "WELCOME10", "CODE0"):
        assert absent not in text


def test_a_backend_that_fails_fails_nothing_and_is_warned_about_once() -> None:
    with StatsdServer() as server:
        client = {"AIRFLOW__METRICS__STATSD_CUSTOM_CLIENT_PATH": "tests.statsd.BrokenClient"}
        done = run("poke", "deferred", **server.environment, **client)

        assert [metric for metric in server.received() if "capillary" in metric.name] == []
    output = done.stdout + done.stderr
    assert output.count("Metrics of Capillary cannot be sent (OSError)") == 1
    assert "hunter2" not in output
    assert "poke failed" in done.stdout
    assert "deferred success" in done.stdout


def test_a_server_whose_name_is_unknown_fails_nothing() -> None:
    with StatsdServer() as server:
        environment = server.environment | {"AIRFLOW__METRICS__STATSD_HOST": "statsd.invalid"}
        done = run("poke", "deferred", **environment)

    assert "poke failed" in done.stdout
    assert "deferred success" in done.stdout


def test_nothing_is_imported_for_metrics_where_they_are_off() -> None:
    done = run("poke", "deferred", "transfer")

    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "airflow_provider_capillary._metrics" in imported
    assert not {name for name in imported if re.search(r"^(statsd|datadog)\b|\b(statsd|datadog|otel)_logger$", name)}


def test_a_dag_file_imports_nothing_for_metrics_where_they_are_on() -> None:
    modules = ", ".join(f"airflow_provider_capillary.{name}" for name in ENTRY_MODULES)
    code = f"import {modules}, json, sys; print(json.dumps(sorted(sys.modules)))"
    with StatsdServer() as server:
        environment = os.environ | server.environment
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "airflow_provider_capillary._metrics" not in json.loads(done.stdout.splitlines()[-1])


def test_the_documented_metrics_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `capillary\.(\w+)` \| (\w+) \| ([^|]+) \|", text_of("docs/operations/metrics.md"), re.MULTILINE
    )

    documented = {name: (type_, tuple(re.findall(r"`(\w+)`", tags))) for name, type_, tags in rows}
    assert documented == METRICS
