# SPDX-License-Identifier: Apache-2.0
"""Rows are personal data and tokens are keys: neither appears anywhere but where it belongs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryError
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import AIRFLOW_VERSION, OutletEventAccessors, asset, redact
from tests.transfers.running import SERIES, Run, clock_of_transfers, connect, file_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder

ROW = "4111-mobile-of-a-customer"
CONTENT = f"message,coupon code\nCoupon is expired,{ROW}\n".encode() * 100
SECRET = "sandbox-secret"
HEADER_VALUE = "value-of-an-extra-header"
SIGNATURE = "hunter2-of-a-signature"
#: How often a line of a task shows: before Airflow 3.1 the standard library prints it, and pytest catches it as well.
LOG_STREAMS = 1 if AIRFLOW_VERSION >= (3, 1) else 2

FAULTS = {
    "nothing": None,
    "a body that always breaks off": Fault("cut", endpoint="download", times=None),
    "compressed data that is none": Fault(
        "body", endpoint="download", status=200, body=CONTENT, headers={"Content-Encoding": "gzip"}
    ),
    "a compression that is unknown": Fault(
        "body", endpoint="download", status=200, body=CONTENT, headers={"Content-Encoding": "br"}
    ),
    "an error with rows in its body": Fault("status", endpoint="download", status=400, body=CONTENT),
    "an error page with rows": Fault("html", endpoint="download", status=502, body=CONTENT.decode(), times=None),
    "a file that changes": Fault("cut", endpoint="download"),
    "an unmarked end": Fault("unmarked", endpoint="download"),
    "a token that expired": Fault("expired_token", endpoint="download"),
    "a token that is always refused": Fault("expired_token", endpoint="download", times=None),
    "another server's redirect": Fault("redirect", endpoint="download", location=f"https://10.0.0.1/?{SIGNATURE}"),
}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All that was logged, by any library and at any level, or printed."""
    caplog.set_level(logging.DEBUG)

    def all_of_it() -> str:
        out, err = capfd.readouterr()
        return caplog.text + out + err

    return all_of_it


def output_of(run: Run) -> str:
    """Run it. Return its whole output: XComs, result, and the exception with all its causes."""
    output = ""
    try:
        run()
    except CapillaryError as error:
        output = "".join(traceback.format_exception(error)) + repr(error) + repr(error.to_dict())
    return output + repr(run.xcoms) + repr(run.result)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("is_writable", [True, False], ids=["written", "not writable"])
def test_no_row_token_or_secret_is_logged_raised_or_pushed(
    sandbox: Sandbox,
    store: LocalFolder,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], str],
    fault: Fault | None,
    is_writable: bool,
) -> None:
    connect(monkeypatch, sandbox, headers={"X-CAP-EXTRA": HEADER_VALUE})
    job = sandbox.add_job(SERIES, errors=1, error_file=CONTENT)
    if fault is not None:
        sandbox.inject(fault)
    if not is_writable:
        store.put("errors.csv", b"a file, not a folder")
    run = Run(job, store.folder + ("errors.csv" if is_writable else "errors.csv/x"))

    output = output_of(run) + said()

    assert "sandbox" in output or "127.0.0.1" in output  # it is not about nothing
    for secret in (ROW, SECRET, HEADER_VALUE, SIGNATURE, *sandbox.tokens_issued):
        assert secret not in output


def test_what_it_logs_names_job_size_hash_and_place(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], str]
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=CONTENT)

    run = Run(job, store.folder)()

    logged = said()
    lines = [line for line in logged.splitlines() if "sha256" in line]
    assert len(lines) == LOG_STREAMS
    facts = run.xcoms["error_file"]
    for fact in (str(job.job_id), f"{facts['size_bytes']} bytes", facts["sha256"]):
        assert all(fact in line for line in lines)
    # At the beginning, where it goes; at the end, where it is.
    assert logged.count(facts["uri"]) == 2 * LOG_STREAMS


@pytest.mark.parametrize("file_type", ["error", "success", "uploaded"])
def test_no_row_is_in_the_log_xcoms_or_events_of_a_file_that_takes_long(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], str], file_type: str
) -> None:
    files: Any = {f"{name}_file": CONTENT for name in ("error", "success", "uploaded")}
    job = sandbox.add_job(SERIES, errors=1, **files)
    errors, events = asset("errors", "s3://lake/errors"), OutletEventAccessors()
    run = Run(job, store.folder, file_type=file_type, outlets=[errors])
    context: Any = {"ti": run.ti, "outlet_events": events}

    with clock_of_transfers(itertools.count(0, 11).__next__):
        result = run.operator.execute(context)

    logged = said()
    output = [logged, repr(result), repr(run.xcoms), repr(events[errors].extra)]
    assert all(str(job.job_id) in each for each in output)
    assert logged.count(" bytes after ") == LOG_STREAMS
    for secret in (ROW, "Coupon is expired", SECRET, *sandbox.tokens_issued):
        assert secret not in "".join(output)


@pytest.mark.parametrize("is_broken", [False, True], ids=["fetched", "not fetched"])
def test_the_query_of_a_signed_url_is_masked_even_in_the_debug_log_of_the_http_library(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], str], is_broken: bool
) -> None:
    # urllib3 logs the path with its query at DEBUG. Airflow hides masked secrets.
    job = sandbox.add_job(SERIES, errors=1, error_file=CONTENT, error_file_url=f"{file_url(sandbox)}?sig={SIGNATURE}")
    if is_broken:
        sandbox.inject(Fault("reset", endpoint="files", times=None))
    run = Run(job, store.folder)

    output = output_of(run)
    logged: Any = said()

    assert SIGNATURE not in output
    with contextlib.suppress(AttributeError):
        logged = redact(logged)
    assert SIGNATURE not in str(logged)
