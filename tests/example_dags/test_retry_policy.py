# SPDX-License-Identifier: Apache-2.0
"""The retry policy of the example DAG, evaluated by Airflow's own task runner after real failures."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryJobNotFoundError, CapillaryRateLimitError
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.airflow_compat import AIRFLOW_VERSION, add_bundle
from tests.example_dags.retry_child import FOLDER
from tests.ports import free_ports
from tests.project import ROOT, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = ROOT / "example_dags" / "capillary_retry_policy.py"
HAS_RETRY_POLICIES = AIRFLOW_VERSION >= (3, 3)
needs_retry_policies = pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="retry policies came with Airflow 3.3")


@pytest.fixture(scope="module")
def retries() -> dict[str, Any]:
    return dict(runpy.run_path(str(EXAMPLE))["RETRIES"])


@pytest.mark.skipif(HAS_RETRY_POLICIES, reason="this Airflow has retry policies")
def test_on_an_older_airflow_the_tasks_are_retried_after_the_same_delay(retries: dict[str, Any]) -> None:
    assert retries == {"retries": 5, "retry_delay": timedelta(minutes=5)}


@needs_retry_policies
class TestRetryPolicy:
    @pytest.fixture(scope="class")
    def stored(self, airflow_database: None) -> Iterator[dict[str, Any]]:
        """What Airflow stored of each task: state, delay in seconds, reason and number of the try."""
        with Sandbox(queued_seconds=0, started_seconds=0) as sandbox, pytest.MonkeyPatch.context() as patch:
            sandbox.inject(Fault("status", endpoint="status", status=429, retry_after="0", times=None))
            connections = {
                "limited": sandbox.connection(requests_per_minute=1_000_000),
                "unreachable": sandbox.connection() | {"port": free_ports(1)[0]},
                "refused": sandbox.connection() | {"password": "another secret"},
                "misconfigured": sandbox.connection(timeout_seconds="soon"),
            }
            for name, connection in connections.items():
                patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
            add_bundle(patch, "retries", FOLDER)
            patch.setenv("RETRY_CONNECTIONS", ",".join(connections))
            command = [sys.executable, "-m", "tests.example_dags.retry_child"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            yield json.loads(done.stdout.splitlines()[-1])

    def test_a_task_that_capillary_rate_limits_is_retried_late(self, stored: dict[str, Any]) -> None:
        assert stored["limited"] == ["up_for_retry", 900.0, "Capillary refuses more requests for now", 1]

    def test_a_task_that_cannot_reach_capillary_is_retried_soon(self, stored: dict[str, Any]) -> None:
        assert stored["unreachable"] == ["up_for_retry", 30.0, "Capillary could not be reached", 1]

    @pytest.mark.parametrize("cause", ["refused", "misconfigured"])
    def test_a_task_that_no_retry_can_help_fails_at_its_first_try(self, stored: dict[str, Any], cause: str) -> None:
        state, _, _, try_number = stored[cause]
        assert (state, try_number) == ("failed", 1)

    def test_an_error_without_a_rule_is_left_to_the_retry_delay_of_the_task(self, retries: dict[str, Any]) -> None:
        policy = retries["retry_policy"]

        assert policy.evaluate(CapillaryJobNotFoundError("no such job"), 1, 5).action.value == "default"
        assert policy.evaluate(CapillaryRateLimitError("too many"), 1, 5).action.value == "retry"

    def test_the_documented_rules_are_those_of_the_example(self, retries: dict[str, Any]) -> None:
        rows = re.findall(
            r"^\| (`Capillary.+`) \| (.+?) \|(.*)\|$", text_of("docs/operations/retries.md"), re.MULTILINE
        )
        documented = [(set(re.findall(r"`(\w+)`", names)), task, delay.strip()) for names, task, delay in rows]
        shown = {None: "", timedelta(minutes=15): "15 minutes", timedelta(seconds=30): "30 seconds"}
        words = {"retry": "is retried", "fail": "fails at once"}

        assert documented == [
            (
                {each.__name__ for each in (rule.exception if isinstance(rule.exception, list) else [rule.exception])},
                words[rule.action.value],
                shown[rule.retry_delay],
            )
            for rule in retries["retry_policy"].rules
        ]
