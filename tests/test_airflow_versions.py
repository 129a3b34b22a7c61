# SPDX-License-Identifier: Apache-2.0
"""What differs between the versions of Airflow: where names live, and what an older one lacks."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary import _airflow_compat
from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from tests.airflow_compat import (
    AIRFLOW_VERSION,
    HAS_ASSET_WATCHERS,
    HAS_TASK_STATE_STORE,
    TRIGGERER_RENDERS_TEMPLATES,
)
from tests.project import imports_in
from tests.sensors.running import run_to_end

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox

PACKAGE = Path(_airflow_compat.__file__).parent
SERIES = 535512
#: Providers whose modules are imported where they are needed; they are there if the store or OpenLineage is.
OTHER_PROVIDERS = ("airflow.providers.amazon.", "airflow.providers.openlineage.")


#: Prints, as JSON, for each name whether it was found, what was said instead, and the warnings that our import caused:
#: some Airflows warn of themselves.
FIND_NAMES = """
import json, sys, warnings
from airflow_provider_capillary import _airflow_compat

found = {}
for name in sys.argv[1:]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            problem = "" if getattr(_airflow_compat, name) is not None else "it is None"
        except ImportError as error:
            problem = str(error)
    found[name] = problem, [str(each.message) for each in caught if each.filename == _airflow_compat.__file__]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[str, list[str]]]:
    """Each name with the problem and the warnings of its import, in a process where nothing of Airflow was imported."""
    command = [sys.executable, "-c", FIND_NAMES, *sorted(_airflow_compat._HOMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: (problem, caught) for name, (problem, caught) in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize("name", sorted(_airflow_compat._HOMES))
def test_every_name_is_found_without_a_warning_or_says_which_airflow_has_it(
    name: str, found: dict[str, tuple[str, list[str]]]
) -> None:
    since, _, before = _airflow_compat._HOMES[name]
    problem, caught = found[name]

    if before or since <= AIRFLOW_VERSION:
        assert (problem, caught) == ("", [])
    else:
        assert f"{name} needs Airflow {since[0]}.{since[1]} or newer; this is " in problem


def test_a_name_that_is_not_listed_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Variable'"):
        _airflow_compat.Variable  # noqa: B018


def test_no_other_module_of_the_package_knows_where_airflow_keeps_its_names() -> None:
    found = {
        (file.relative_to(PACKAGE).as_posix(), name)
        for file in PACKAGE.rglob("*.py")
        for name, _ in imports_in(file.read_text())
        if name.split(".")[0] == "airflow" and not f"{name}.".startswith(OTHER_PROVIDERS)
    }
    assert {file for file, _ in found} == {"_airflow_compat.py"}


@pytest.mark.skipif(HAS_ASSET_WATCHERS, reason="this Airflow has asset watchers")
def test_without_asset_watchers_the_asset_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"capillary_redeem_uploads needs Airflow 3\.0 or newer"):
        capillary_redeem_uploads(SERIES)


@pytest.mark.skipif(TRIGGERER_RENDERS_TEMPLATES, reason="this Airflow can start a task in the triggerer")
def test_start_from_trigger_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"start_from_trigger needs Airflow 3\.3 or newer"):
        CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, start_from_trigger=True)


@pytest.mark.skipif(HAS_TASK_STATE_STORE, reason="this Airflow keeps the failed polls of a task")
@pytest.mark.usefixtures("capillary_connection", "quick_retries")
class TestRescheduleModeWithoutATaskStateStore:
    def test_failed_polls_in_a_row_are_counted_and_end_the_wait(self, sandbox: Sandbox) -> None:
        sandbox.add_job(SERIES, started_seconds=3600)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        processes: list[int] = []

        end = run_to_end("reschedule", self._sensor, between=processes.append)

        assert (end.state, end.error) == ("up_for_retry", "CapillaryApiError")
        assert processes == []  # the worker slot was kept

    def test_the_worker_slot_is_given_back_once_a_poll_succeeds(self, sandbox: Sandbox) -> None:
        job = sandbox.add_job(SERIES, started_seconds=3600)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=4))  # two polls of two attempts
        processes: list[int] = []

        def finish(count: int) -> None:
            processes.append(count)
            sandbox.finish(job)

        end = run_to_end("reschedule", self._sensor, between=finish)

        assert (end.state, len(processes)) == ("success", 1)
        assert sandbox.count("status") == 6

    @staticmethod
    def _sensor(**arguments: object) -> CapillaryRedeemUploadSensor:
        return CapillaryRedeemUploadSensor(
            task_id="wait", coupon_series_id=SERIES, max_consecutive_failures=3, poke_interval=0.01, **arguments
        )


@pytest.mark.skipif(not (3, 2) <= AIRFLOW_VERSION < (3, 3), reason="Airflow 3.2 holds a lock while a thread sends")
@pytest.mark.timeout(20)
async def test_a_secret_is_masked_in_the_triggerer_while_airflow_masks_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that Airflow reads on the event loop is masked there, and would wait for the lock for good."""
    from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import _ResponseFrame
    from airflow.sdk.log import mask_secret

    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    requests, responses = await asyncio.open_connection(sock=theirs)
    comms = TriggerCommsDecoder(async_writer=writer, async_reader=reader, socket=ours)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)

    masked = asyncio.create_task(_airflow_compat.amask_secret("our token"))
    sent = await requests.readexactly(int.from_bytes(await requests.readexactly(4), "big"))
    mask_secret("of another connection")
    responses.write(_ResponseFrame(id=0).as_bytes())
    await masked

    assert b"our token" in sent
    writer.close()
    responses.close()
