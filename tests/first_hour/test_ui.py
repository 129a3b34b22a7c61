# SPDX-License-Identifier: Apache-2.0
"""Airflow's UI in a real browser: the form of a connection, and a run from its trigger dialog to its XCom.

With ``SCREENSHOTS`` naming a folder, the pictures of the documentation are taken on the way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By

from tests.browser import CONNECTION_TYPE, ConnectionForm, Page, chromium, programs, stack
from tests.docs.pages import fences_of
from tests.first_hour.conftest import PAGE, SANDBOX_PORT
from tests.first_hour.standalone import Standalone
from tests.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.first_hour.conftest import FirstHour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SECRET = "sandbox-secret"
CONN_ID = "capillary_by_hand"
SANDBOX = f"http://127.0.0.1:{SANDBOX_PORT}"
#: Name -> value of each field. The error file URL is not used by a test of the connection.
STANDARD = {
    "description": "The sandbox on this machine",
    "host": "http://127.0.0.1",
    "login": "sandbox-key",
    "password": SECRET,
    "port": str(SANDBOX_PORT),
}
EXTRA: dict[str, Any] = {
    "auth_type": "oauth",
    "auth_url": f"{SANDBOX}/v3/oauth/token/generate",
    "error_file_url": "s3://capillary-files/{handle}",
    "error_file_conn_id": "aws_default",
    "cluster_timezone": "Asia/Kolkata",
    "requests_per_minute": 300,
    "timeout_seconds": 12.5,
    "verify": "true",
    "allow_http": True,
    "headers": {"X-CAP-API-AUTH-ORG-ID": "100458"},
}
#: What the picture of the form shows: the connection of a brand.
PICTURED = {
    "connection_id": "capillary_default",
    "host": "eu.api.capillarytech.com",
    "login": "example-client-key",
    "password": "example-client-secret",  # shown as dots
    "port": "443",
}
DAG_ID = "capillary_nightly_redeem_errors"
MAX_BYTES = 300_000
RUN_SECONDS = 600.0


def keep(name: str, picture: bytes) -> None:
    """Keep a picture for the documentation, if that was asked for."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        assert len(picture) <= MAX_BYTES, f"{name} has {len(picture):,} bytes"
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_bytes(picture)


@pytest.fixture(scope="module")
def airflow(first_hour: FirstHour) -> Iterator[Standalone]:
    """The Airflow of the page, with its UI."""
    assert "airflow standalone\n" in [fence.text for fence in fences_of(PAGE, "console")]
    shutil.copy(ROOT / "example_dags" / "capillary_redeem_errors_by_event.py", f"{first_hour.env['AIRFLOW_HOME']}/dags")
    running = Standalone(first_hour.folder, first_hour.env)
    try:
        running.wait_until_healthy()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The UI in a browser."""
    if programs() is None:
        pytest.skip("no Chromium with its driver is installed (Debian: apt-get install chromium chromium-driver)")
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield Page(browser, request.getfixturevalue("airflow").url)


def row_button(label: str) -> str:
    """The path of a button in the row of our connection."""
    return f"//tr[.//*[normalize-space()='{CONN_ID}']]//button[@aria-label='{label}']"


class TestConnectionForm:
    @pytest.fixture(scope="class")
    def saved(self, page: Page) -> Page:
        """Fill in and save the form of a new connection."""
        assert set(EXTRA) == set(CONNECTION_TYPE["conn-fields"])
        page.open("connections")
        page.click("//button[contains(., 'Add Connection')]")
        form = ConnectionForm(page)
        form.choose_type(CONNECTION_TYPE["hook-name"])
        form.set_text("connection_id", CONN_ID)
        form.expand("Standard Fields")
        for name, value in STANDARD.items():
            form.set_text(name, value)
        form.expand("Extra Fields")
        for name, value in EXTRA.items():
            form.set_extra(name, value)
        assert form.extras() == EXTRA
        form.save()
        return page

    def test_has_every_field_of_the_provider_info(self, page: Page) -> None:
        labels = {"Connection ID", "Port", *CONNECTION_TYPE["ui-field-behaviour"]["relabeling"].values()}
        page.open("connections")
        page.click("//button[contains(., 'Add Connection')]")
        form = ConnectionForm(page)
        form.choose_type(CONNECTION_TYPE["hook-name"])
        form.expand("Standard Fields")
        assert labels - form.labels() == set()
        for name, value in PICTURED.items():
            form.set_text(name, value)
        standard = form.element.screenshot_as_png
        form.expand("Extra Fields")
        assert {field["label"] for field in CONNECTION_TYPE["conn-fields"].values()} - form.labels() == set()
        form.set_extra("cluster_timezone", "Asia/Kolkata")
        form.set_extra("requests_per_minute", 100)
        keep("connection-form.png", stack(page.browser, [standard, form.element.screenshot_as_png]))

    def test_is_saved_and_reopened_with_every_value_and_the_secret_hidden(self, saved: Page) -> None:
        saved.open("connections")
        saved.click(row_button("Edit Connection"))
        form = ConnectionForm(saved)
        form.expand("Standard Fields")
        shown = {name: form.field(name).get_property("value") for name in STANDARD}
        assert shown == STANDARD | {"password": "***"}
        assert form.field("password").get_attribute("type") == "password"
        form.expand("Extra Fields")
        assert form.extras() == EXTRA
        assert SECRET not in saved.browser.page_source

    def test_is_stored_as_it_was_filled_in_and_the_api_hides_the_secret(self, saved: Page, airflow: Standalone) -> None:
        stored = airflow.get(f"connections/{CONN_ID}")
        assert {name: str(stored[name]) for name in STANDARD} == STANDARD | {"password": "***"}
        assert stored["conn_type"] == CONNECTION_TYPE["connection-type"]
        assert json.loads(stored["extra"]) == EXTRA

    def test_is_tested_by_its_button_against_the_sandbox(self, saved: Page) -> None:
        saved.open("connections", width=1400, height=900)
        saved.click(row_button("Test Connection"))
        toast = "//*[@data-scope='toast'][@data-part='root']"
        message = saved.shows(f"{toast}[.//*[@data-part='title']]").text
        assert "Test Connection Successful" in message
        assert "the credentials are good" in message


class TestRun:
    @pytest.fixture(scope="class")
    def run_id(self, page: Page, airflow: Standalone) -> str:
        """Trigger a run by the dialog, and wait until it has ended."""

        def runs() -> dict[str, str]:
            found = airflow.get(f"dags/{DAG_ID}/dagRuns").get("dag_runs", [])
            return {run["dag_run_id"]: run["state"] for run in found if run["run_type"] == "manual"}

        before = runs()
        assert before  # that of the page
        page.open(f"dags/{DAG_ID}", width=1400, height=1500)
        page.click("//button[normalize-space()='Trigger']")
        dialog = page.shows("//*[@role='dialog'][.//button[normalize-space()='Trigger']]")
        shown = {label.text.removesuffix("*").strip() for label in dialog.find_elements(By.TAG_NAME, "label")}
        assert {"coupon_series_id", "invalid", "folder", "destination", "object_storage_conn_id"} <= shown
        keep("trigger-dialog.png", dialog.screenshot_as_png)
        dialog.find_element(By.XPATH, ".//button[normalize-space()='Trigger']").click()

        def ended() -> list[str]:
            new = {run_id: state for run_id, state in runs().items() if run_id not in before}
            assert "failed" not in new.values()
            return [run_id for run_id, state in new.items() if state == "success"]

        (run_id,) = airflow.until(ended, "the run is green", seconds=RUN_SECONDS)
        return str(run_id)

    def test_shows_in_the_log_of_the_wait_what_it_waited_for_and_how_it_ended(self, page: Page, run_id: str) -> None:
        page.open(f"dags/{DAG_ID}/runs/{run_id}/tasks/wait/mapped/0", width=1400, height=900)
        page.shows("//*[contains(text(), 'is complete: 40 rows, 7 errors')]")
        page.browser.find_element(By.TAG_NAME, "body").send_keys("w")  # wraps the lines
        shown = page.browser.find_element(By.TAG_NAME, "body").text
        assert re.search(r"Waiting for redeem upload job \d+ of coupon series 535512", shown)
        assert re.search(r"Upload job \d+ is COMPLETED", shown)
        keep("wait-log.png", page.browser.get_screenshot_as_png())

    def test_shows_the_facts_of_the_error_file_in_the_xcom(self, page: Page, run_id: str) -> None:
        page.open(f"dags/{DAG_ID}/runs/{run_id}/tasks/errors/mapped/0/xcom", width=1400, height=900)
        page.shows("//td[normalize-space()='error_file']")
        page.click("//button[@aria-label='Expand all extra JSON']")
        page.shows("//*[contains(., 'sha256')]")
        keep("xcom.png", page.browser.get_screenshot_as_png())

    def test_shows_the_asset_of_a_series_with_the_dag_that_it_starts(self, page: Page, airflow: Standalone) -> None:
        assets = airflow.get("assets")["assets"]
        (watched,) = [asset["id"] for asset in assets if asset["uri"].startswith("capillary://")]
        page.open(f"assets/{watched}", width=1400, height=900)
        page.shows("//*[contains(@class, 'react-flow__node')][contains(., 'capillary_redeem_errors_by_event')]")
        keep("asset-graph.png", page.browser.get_screenshot_as_png())
