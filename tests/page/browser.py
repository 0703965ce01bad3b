"""Debian's Chromium without a screen, and what pages did in it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

from ..conditions import wait_for

CHROMIUM, DRIVER = "chromium", "chromedriver"

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-lcd-text",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser with one window.

    It is told where the driver is: selenium would look for one on the network.
    """

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def open(self, url: str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show a page anew, in a viewport of this size."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])
        self._driver.get("about:blank")
        self._logged()
        self._driver.get(url)

    def resize(self, width: int, height: int = 900) -> None:
        """Of the viewport, in CSS pixels."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def text(self, id: str = "") -> str:
        """What can be read in the element of this id, or on the whole page."""
        where = f"document.getElementById({id!r})" if id else "document.body"
        return str(self.run(f"return {where}.innerText").replace("\xa0", " "))

    def title(self) -> str:
        return str(self._driver.title)

    def run(self, script: str, *arguments: object) -> Any:
        """What JavaScript returns that is run in the page."""
        return self._driver.execute_script(script, *arguments)

    def wait_for(self, text: str, id: str = "") -> None:
        """Return as soon as this can be read."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: text in self.text(id), text)
            return
        raise AssertionError(f"no {text!r} in {self.text(id)!r}")

    def click(self, selector: str) -> None:
        self._driver.find_element(By.CSS_SELECTOR, selector).click()

    def picture(self, until: str) -> bytes:
        """The page as PNG, from its top to the end of the first element of a selector."""
        script = (
            "return document.querySelector(arguments[0]).getBoundingClientRect().bottom + scrollY"
        )
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": self.run(script, until), "scale": 1}
        self._cdp("Emulation.setScrollbarsHidden", hidden=True)
        taken = self._cdp("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def accessible(self) -> list[dict[str, Any]]:
        """The tree that assistive technology is given, as a list."""
        return list(self._cdp("Accessibility.getFullAXTree")["nodes"])

    def happened(self) -> tuple[list[str], list[str]]:
        """All URLs that the page has asked for, and what the console says, since the last call."""
        requests, console = [], []
        for method, parameters in self._logged():
            if method == "Network.requestWillBeSent":
                requests.append(parameters["request"]["url"])
            elif method == "Runtime.consoleAPICalled":
                console.append(json.dumps(parameters["args"]))
            elif method == "Runtime.exceptionThrown":
                console.append(json.dumps(parameters["exceptionDetails"]))
            elif method == "Log.entryAdded":
                console.append(parameters["entry"]["text"])
        return requests, console

    def _logged(self) -> list[tuple[str, dict[str, Any]]]:
        entries = [
            json.loads(each["message"])["message"] for each in self._driver.get_log("performance")
        ]
        return [(each["method"], each["params"]) for each in entries]

    def _cdp(self, command: str, **parameters: object) -> dict[str, Any]:
        return self._driver.execute_cdp_cmd(command, parameters)


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser with a profile of its own, and its temporary files in it."""
    chromium, chromedriver = shutil.which(CHROMIUM), shutil.which(DRIVER)
    assert chromium, "see is_installed"
    assert chromedriver, "see is_installed"
    with tempfile.TemporaryDirectory(prefix="zrs-browser-") as directory:
        options = ChromeOptions()
        options.binary_location = chromium
        for argument in (*_ARGUMENTS, f"--user-data-dir={directory}/profile"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        service = ChromeService(chromedriver, env={**os.environ, "TMPDIR": directory})
        driver = Chrome(options, service)
        try:
            driver.execute_cdp_cmd("Log.enable", {})
            driver.execute_cdp_cmd("Runtime.enable", {})
            yield Browser(driver)
        finally:
            driver.quit()


def is_installed() -> bool:
    return all(shutil.which(each) for each in (CHROMIUM, DRIVER))
