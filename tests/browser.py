# SPDX-License-Identifier: Apache-2.0
"""Airflow's own UI in a headless Chromium."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.wait import WebDriverWait

from airflow_provider_capillary.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

#: A deadline, not a wait: a machine with nothing else to do needs a tenth of it.
UI_SECONDS = 180.0

INFO: Any = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]


def programs() -> tuple[str, str] | None:
    """Return the paths of a Chromium and of its driver, if both are installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Run a headless browser with an empty profile."""
    found = programs()
    assert found is not None
    options = webdriver.ChromeOptions()
    options.binary_location, driver = found
    flags = [
        "--headless=new",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",  # a container has 64 MB of it
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
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """What a test does with the page that a browser shows.

    :param browser: The browser.
    :param url: Address of Airflow's UI.
    """

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self._url = url

    def open(self, path: str, *, width: int = 1100, height: int = 2400) -> None:
        """Show a page of the UI, in a window of a size in pixels."""
        self.browser.set_window_size(width, height)
        self.browser.get(f"{self._url}/{path}")

    def until(self, condition: Callable[[Any], Any], *, seconds: float = UI_SECONDS) -> Any:
        """Wait for a condition, and return what it returned."""
        wait = WebDriverWait(self.browser, seconds)
        try:
            return wait.until(condition)
        except Exception as error:
            shown = self.browser.find_element(By.TAG_NAME, "body").text
            raise AssertionError(
                f"{type(error).__name__} at {self.browser.current_url}, which shows:\n{shown}"
            ) from error

    def shows(self, xpath: str, *, seconds: float = UI_SECONDS) -> WebElement:
        """Wait until an element is visible."""
        found: WebElement = self.until(expected.visibility_of_element_located((By.XPATH, xpath)), seconds=seconds)
        return found

    def click(self, xpath: str) -> None:
        """Click on an element as soon as that is possible."""
        self.until(expected.element_to_be_clickable((By.XPATH, xpath))).click()


def stack(browser: webdriver.Chrome, pictures: list[bytes]) -> bytes:
    """Put pictures one below the other, with the browser as the image editor."""
    sources = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    images = "".join(f'<img src="{source}" style="display:block;margin:8px">' for source in sources)
    page = f'<body style="margin:0"><div id="all" style="width:max-content;background:#9ca3af;padding:8px">{images}'
    browser.get("data:text/html;base64," + base64.b64encode(page.encode()).decode())
    whole = browser.find_element(By.ID, "all")
    browser.set_window_size(1100, whole.size["height"] + 300)
    return browser.find_element(By.ID, "all").screenshot_as_png


class ConnectionForm:
    """The form of a connection in Airflow 3.3.

    :param page: The page that shows it.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._root = page.shows("//*[@role='dialog']")

    @property
    def element(self) -> WebElement:
        """The form as a whole."""
        return self._root

    def choose_type(self, name: str) -> None:
        """Choose the type of the connection."""
        chooser = self._root.find_element(By.CSS_SELECTOR, "input[role=combobox]")
        chooser.send_keys(name, Keys.ENTER)
        self._page.until(expected.presence_of_element_located((By.NAME, "host")))

    def expand(self, section: str) -> None:
        """Open a section of the form; Airflow closes the others."""
        self._page.until(lambda _: self._root.find_elements(By.XPATH, f".//button[normalize-space()='{section}']"))
        button = self._root.find_element(By.XPATH, f".//button[normalize-space()='{section}']")
        if button.get_attribute("aria-expanded") != "true":
            button.click()
        content = self._root.find_element(By.ID, str(button.get_attribute("aria-controls")))
        # It grows, and the editor of JSON measures itself again afterwards.
        sizes: list[int] = []

        def stands_still(_: Any) -> bool:
            sizes.append(content.size["height"])
            return content.is_displayed() and sizes[-4:] == [sizes[-1]] * 4

        self._page.until(stands_still)

    def labels(self) -> set[str]:
        """Return the labels that are visible."""
        return {label.text.removesuffix("*").strip() for label in self._root.find_elements(By.TAG_NAME, "label")}

    def field(self, name: str) -> WebElement:
        """Return the input of a field."""
        # Numbers have an input with a name, but without a useful id; the name does for all.
        return self._root.find_element(By.NAME, name)

    def set_text(self, name: str, value: str) -> None:
        """Put text into a field that is empty, or has what Airflow proposes."""
        self.field(name).send_keys(Keys.CONTROL, "a")
        self.field(name).send_keys(Keys.NULL, value)

    def set_extra(self, name: str, value: Any) -> None:
        """Put a value into an extra field, by the kind of its input."""
        kind, *_ = CONNECTION_TYPE["conn-fields"][name]["schema"]["type"]
        if "enum" in CONNECTION_TYPE["conn-fields"][name]["schema"]:
            box = self._root.find_element(By.CSS_SELECTOR, f"#element_{name} input[role=combobox]")
            box.send_keys(value)
            self._page.shows(f"//*[@role='option'][normalize-space()='{value}']").click()
        elif kind == "boolean":
            switch = self.field(f"element_{name}")
            if switch.is_selected() is not value:
                switch.find_element(By.XPATH, "./ancestor::label").click()
        elif kind == "object":
            self._root.find_element(By.CSS_SELECTOR, f"#element_{name} .monaco-editor").click()
            browser = self._page.browser
            ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
            # At once, because the editor formats what is typed; behind it, remove the brackets that it has closed.
            browser.execute_cdp_cmd("Input.insertText", {"text": json.dumps(value)})
            behind = ActionChains(browser).key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys(Keys.END)
            behind.key_up(Keys.SHIFT).key_up(Keys.CONTROL).send_keys(Keys.DELETE).perform()
            self._page.until(lambda _: self._json_of(name) == value)
        else:
            self.set_text(f"element_{name}", str(value))

    def extras(self) -> dict[str, Any]:
        """Return what the extra fields show."""
        return {name: self._extra(name, field["schema"]["type"][0]) for name, field in self._fields().items()}

    def save(self) -> None:
        """Save, and wait until the form is gone."""
        self._root.find_element(By.XPATH, ".//button[normalize-space()='Save']").click()
        self._page.until(expected.invisibility_of_element_located((By.CSS_SELECTOR, "[role=dialog]")))

    @staticmethod
    def _fields() -> dict[str, Any]:
        fields: dict[str, Any] = CONNECTION_TYPE["conn-fields"]
        return fields

    def _extra(self, name: str, kind: str) -> Any:
        if kind == "object":
            return self._json_of(name)
        field = self.field(f"element_{name}")
        if kind == "boolean":
            return field.is_selected()
        text = str(field.get_property("value"))
        return json.loads(text) if kind in ("integer", "number") and text else text

    def _json_of(self, name: str) -> Any:
        lines = self._root.find_element(By.CSS_SELECTOR, f"#element_{name} .view-lines").text
        try:
            return json.loads(lines.replace("\u00a0", " ") or "null")
        except ValueError:
            return lines
