# SPDX-License-Identifier: Apache-2.0
"""Take the pictures of docs/images in Airflow's own UI, all or those that are named: connection-form, wait-log.

Starts an Airflow in a temporary home and a local Capillary, opens the UI in headless Chromium, and fails when something
is not there that a picture is to show. To add one, write a function and name it in PICTURES.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.wait import WebDriverWait

from airflow_provider_capillary.get_provider_info import get_provider_info
from airflow_provider_capillary.sandbox import Sandbox
from tests.system.airflow_processes import AirflowProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webelement import WebElement

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAX_BYTES = 300_000
UI_TIMEOUT_SECONDS = 60.0
WAIT_SECONDS = 240.0
SERIES = 535512
DAG = """
from airflow.sdk import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

with DAG(dag_id="redeemed_coupons", schedule=None):
    CapillaryRedeemUploadSensor(
        task_id="wait",
        coupon_series_id=535512,
        uploaded_file_name="redeemed_today*.csv",
        deferrable=True,
        poke_interval=3,
        timeout=6 * 60 * 60,
    )
"""

STANDARD_VALUES = {
    "connection_id": "capillary_default",
    "host": "eu.api.capillarytech.com",
    "login": "example-client-key",
    "password": "example-client-secret",  # shown as dots
    "port": "443",
}
EXTRA_VALUES = {"element_cluster_timezone": "Asia/Kolkata", "element_requests_per_minute": "100"}


def tool(*names: str) -> str:
    """Return the first of some programs that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    sys.exit(f"error: none of {', '.join(names)} is installed (Debian: apt-get install chromium chromium-driver)")


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Run a headless browser with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = tool("chromium", "chromium-browser", "google-chrome")
    flags = [
        "--headless=new",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-gpu",
        "--disable-quic",
        "--disable-sync",
        "--force-prefers-reduced-motion",
        "--lang=en",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={profile}",
    ]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium does not start as root otherwise, as in a container
    for flag in flags:
        options.add_argument(flag)
    # The driver by its path: Selenium would otherwise go and download one.
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(tool("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def fill_in(form: WebElement, values: dict[str, str]) -> None:
    for name, value in values.items():
        # Integers are in a spinner whose input has a name, but no useful id; the name does for all.
        form.find_element(By.NAME, name).send_keys(value)


def expand(browser: webdriver.Chrome, form: WebElement, section: str) -> None:
    """Open one section of the form; Airflow closes the others."""
    button = form.find_element(By.XPATH, f".//button[normalize-space()='{section}']")
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    content = form.find_element(By.ID, str(button.get_attribute("aria-controls")))
    WebDriverWait(browser, UI_TIMEOUT_SECONDS).until(expected.visibility_of(content))
    time.sleep(1.5)  # the section grows, and the JSON editor measures itself again afterwards


def require_labels(form: WebElement, labels: set[str]) -> None:
    shown = {label.text.removesuffix("*").strip() for label in form.find_elements(By.TAG_NAME, "label")}
    if missing := labels - shown:
        raise AssertionError(f"not in the form: {sorted(missing)}; there: {sorted(shown)}")


def photograph(form: WebElement) -> str:
    return f"data:image/png;base64,{form.screenshot_as_base64}"


def stack(browser: webdriver.Chrome, pictures: list[str]) -> bytes:
    """Put pictures one below the other, with the browser as the image editor."""
    images = "".join(f'<img src="{picture}" style="display:block;margin:8px">' for picture in pictures)
    page = f'<body style="margin:0"><div id="all" style="width:max-content;background:#9ca3af;padding:8px">{images}'
    browser.get("data:text/html;base64," + base64.b64encode(page.encode()).decode())
    whole = browser.find_element(By.ID, "all")
    browser.set_window_size(1100, whole.size["height"] + 300)
    return browser.find_element(By.ID, "all").screenshot_as_png


def connection_form(browser: webdriver.Chrome, airflow: AirflowProcesses, _: Sandbox) -> bytes:
    """The form of a Capillary connection, filled in."""
    connection: Any = get_provider_info()["connection-types"]
    (connection,) = connection
    wait = WebDriverWait(browser, UI_TIMEOUT_SECONDS)

    browser.set_window_size(1100, 2400)
    browser.get(f"{airflow.url}/connections")
    wait.until(expected.element_to_be_clickable((By.XPATH, "//button[contains(., 'Add Connection')]"))).click()
    form = wait.until(expected.visibility_of_element_located((By.CSS_SELECTOR, "[role=dialog]")))
    chooser = form.find_element(By.CSS_SELECTOR, "input[role=combobox]")
    chooser.send_keys(connection["hook-name"])
    chooser.send_keys(Keys.ENTER)
    wait.until(expected.presence_of_element_located((By.NAME, "host")))

    expand(browser, form, "Standard Fields")
    require_labels(form, {"Connection ID", "Port", *connection["ui-field-behaviour"]["relabeling"].values()})
    fill_in(form, STANDARD_VALUES)
    if form.find_element(By.NAME, "password").get_attribute("type") != "password":
        raise AssertionError("the form shows the client secret in clear")
    standard = photograph(form)

    expand(browser, form, "Extra Fields")
    require_labels(form, {field["label"] for field in connection["conn-fields"].values()})
    fill_in(form, EXTRA_VALUES)
    extra = photograph(form)

    return stack(browser, [standard, extra])


def wait_log(browser: webdriver.Chrome, airflow: AirflowProcesses, sandbox: Sandbox) -> bytes:
    """The log of a wait in deferrable mode: no job there yet, then one that goes through."""
    sandbox.add_job(
        SERIES, rows=1180, errors=12, uploaded_file_name=stored_name("yesterday", 86_400), age_seconds=86_400
    )
    run_id = airflow.trigger("redeemed_coupons")
    airflow.wait_until(lambda: sandbox.count("status") > 1, "the wait is polled", seconds=WAIT_SECONDS)
    sandbox.add_job(SERIES, rows=1250, errors=7, uploaded_file_name=stored_name("today"))

    def is_done() -> bool:
        return bool(airflow.task_instances("redeemed_coupons", run_id)["wait"]["state"] == "success")

    airflow.wait_until(is_done, "the wait ends", seconds=WAIT_SECONDS)
    browser.set_window_size(1700, 1000)
    browser.get(f"{airflow.url}/dags/redeemed_coupons/runs/{quote(run_id)}/tasks/wait")
    wait = WebDriverWait(browser, UI_TIMEOUT_SECONDS)
    wait.until(expected.visibility_of_element_located((By.XPATH, "//*[contains(text(), 'is complete')]")))
    browser.find_element(By.TAG_NAME, "body").send_keys("w")  # wraps long lines
    time.sleep(1)  # the list of lines measures itself
    return browser.get_screenshot_as_png()


def stored_name(day: str, age_seconds: float = 0.0) -> str:
    """Return a file name as Capillary stores it."""
    return f"redeemed_{day}_{(time.time() - age_seconds) * 1000:.0f}_{SERIES}.csv"


PICTURES: dict[str, Callable[[webdriver.Chrome, AirflowProcesses, Sandbox], bytes]] = {
    "connection-form": connection_form,
    "wait-log": wait_log,
}


def main() -> None:
    names = sys.argv[1:] or list(PICTURES)
    if unknown := set(names) - set(PICTURES):
        sys.exit(f"error: no picture is called {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with (
        tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True) as profile,
        Sandbox(queued_seconds=8, started_seconds=8) as sandbox,
        AirflowProcesses(
            dags={"redeemed_coupons.py": DAG},
            connections={"capillary_default": sandbox.connection(cluster_timezone="Asia/Kolkata")},
            settings={"LOGGING__LOGGING_LEVEL": "INFO"},
        ) as airflow,
        chromium(Path(profile)) as browser,
    ):
        pictures = {name: PICTURES[name](browser, airflow, sandbox) for name in names}
    for name, picture in pictures.items():
        if len(picture) > MAX_BYTES:
            sys.exit(f"error: {name} has {len(picture):,} bytes, more than {MAX_BYTES:,}")
        file = IMAGES / f"{name}.png"
        file.write_bytes(picture)
        print(f"{file} ({len(picture):,} bytes)")


if __name__ == "__main__":
    main()
