# SPDX-License-Identifier: Apache-2.0
"""Take docs/images/connection-form.png: the form of a Capillary connection in Airflow's own UI.

Starts an Airflow API server in a temporary home, opens it in headless Chromium, fills the form in, and fails
when a field that the provider declares is not to be seen.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.wait import WebDriverWait

from airflow_provider_capillary.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.remote.webelement import WebElement

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "connection-form.png"
MAX_BYTES = 300_000
START_TIMEOUT_SECONDS = 90.0
UI_TIMEOUT_SECONDS = 30.0

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
def airflow_server(home: Path) -> Iterator[str]:
    """Run an API server that lets everybody in, on a free port of loopback, and hand out its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    airflow = [sys.executable, "-m", "airflow"]
    log_path = home / "server.log"
    with log_path.open("wb") as log:
        subprocess.run([*airflow, "db", "migrate"], env=env, stdout=log, stderr=log, check=True)
        server = subprocess.Popen(
            [*airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{url}/api/v2/version", timeout=5):
                    break
            except (urllib.error.URLError, OSError) as error:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no API server: {error}\n{log_path.read_text()[-3000:]}") from error
                time.sleep(0.5)
        yield url
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Run a headless browser with an empty profile, in a window tall enough for the whole form."""
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
        "--window-size=1100,2400",
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


def take(browser: webdriver.Chrome, url: str) -> bytes:
    connection: Any = get_provider_info()["connection-types"]
    (connection,) = connection
    wait = WebDriverWait(browser, UI_TIMEOUT_SECONDS)

    browser.get(f"{url}/connections")
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


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="connection-form-", ignore_cleanup_errors=True) as folder:
        home, profile = Path(folder, "home"), Path(folder, "profile")
        home.mkdir()
        profile.mkdir()
        with airflow_server(home) as url, chromium(profile) as browser:
            picture = take(browser, url)
    if len(picture) > MAX_BYTES:
        sys.exit(f"error: the picture has {len(picture):,} bytes, more than {MAX_BYTES:,}")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_bytes(picture)
    print(f"{PICTURE} ({len(picture):,} bytes)")


if __name__ == "__main__":
    main()
