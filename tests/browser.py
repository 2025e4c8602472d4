"""A headless Chromium for tests of the pages, which open from file:// as a person opens them."""

import json
import shutil
import time
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
LACKING = "no Chromium with chromedriver is installed; Debian's are in the packages chromium and chromium-driver"


@pytest.fixture(scope="session")
def chromium():
    """Yield a Selenium driver, one for all tests of a process."""
    if not CHROMIUM or not DRIVER:
        pytest.skip(LACKING)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def open_page(driver, path: Path) -> None:
    """Open a page and wait until its charts are drawn; its console must be empty, and it must request nothing."""
    driver.get_log("performance")
    driver.get(path.resolve().as_uri())
    settle(driver)
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [path.resolve().as_uri()]


def settle(driver) -> None:
    """Wait until all charts are drawn."""
    end = time.monotonic() + 20
    while driver.execute_script("return drawing.size") and time.monotonic() < end:
        time.sleep(0.02)
    assert driver.execute_script("return drawing.size") == 0


def texts(driver, selector: str) -> list[str]:
    """Return the texts of the elements that a CSS selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    return driver.execute_script(script, selector)


def choose(driver, label: str, option: str, within: str = "main") -> None:
    """Choose the option with that text in the select with that label."""
    script = """
        const field = [...document.querySelectorAll(arguments[2] + " label")].find((each) => each.firstChild.textContent === arguments[0]);
        const list = field.querySelector("select");
        list.value = [...list.options].find((each) => each.textContent === arguments[1]).value;
        list.dispatchEvent(new Event("change"));
    """  # noqa: E501
    driver.execute_script(script, label, option, within)
    settle(driver)


def click(driver, selector: str) -> None:
    """Click the first element that a CSS selector finds."""
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)
    settle(driver)
