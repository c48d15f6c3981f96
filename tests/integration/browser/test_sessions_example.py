"""The page of examples/sessions_fastapi in Chromium: two tabs of one guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from support.chromium import browser
from support.gateway import ROOT, Gateway

TARGET = f"{ROOT / 'examples' / 'sessions_fastapi' / 'app.py'}:app"
WAIT_SECONDS = 20.0


class Guest:
    """One browser, of which the tabs are known by their window handles."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self._url = url
        driver.get(url)

    def new_tab(self) -> str:
        self.driver.switch_to.new_window("tab")
        self.driver.get(self._url)
        return self.driver.current_window_handle

    def wait_for(self, id: str, text: str) -> None:
        """Until the element says `text`, in the tab that is in front."""
        WebDriverWait(self.driver, WAIT_SECONDS, poll_frequency=0.05).until(
            lambda _: self.text(id) == text, f"#{id} does not say {text!r}"
        )

    def text(self, id: str) -> str:
        return self.driver.find_element(By.ID, id).text

    def sign_in(self, name: str) -> None:
        self.driver.find_element(By.ID, "name").send_keys(name + Keys.ENTER)
        self.wait_for("state", "signed in")

    def add(self, item: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f"#shelf [value={item}]").click()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with Gateway(TARGET, workers=2) as gateway, browser(tmp_path) as driver:
        yield Guest(driver, gateway.url)


@pytest.mark.long
def test_a_cart_is_live_in_all_tabs_until_one_of_them_signs_out(guest: Guest) -> None:
    guest.wait_for("state", "not signed in")
    guest.sign_in("<b>Ada</b>")
    assert guest.text("guest") == "<b>Ada</b>"
    first = guest.driver.current_window_handle
    process = guest.text("process")
    for item in ("Tea", "Coffee", "Tea"):
        guest.add(item)
    guest.wait_for("cart", "Tea\nCoffee\nTea")

    second = guest.new_tab()
    guest.wait_for("cart", "Tea\nCoffee\nTea")
    assert guest.text("process") == process
    guest.add("Cake")
    guest.driver.switch_to.window(first)
    guest.wait_for("cart", "Tea\nCoffee\nTea\nCake")

    guest.driver.find_element(By.ID, "logout").click()
    for tab in (first, second):
        guest.driver.switch_to.window(tab)
        guest.wait_for("state", "signed out")
        assert not guest.driver.find_element(By.ID, "shop").is_displayed()
    assert not guest.driver.get_log("browser")  # type: ignore[no-untyped-call]

    guest.sign_in("Grace")
    assert guest.text("guest") == "Grace"
    assert guest.text("count") == "It is empty."
