"""The page of examples/fastapi_chat in Chromium."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from support.chromium import browser
from support.gateway import ROOT, Gateway

WAIT_SECONDS = 20.0


def test_the_page_enters_a_room_and_says_there_what_is_typed(tmp_path: Path) -> None:
    target = f"{ROOT / 'examples' / 'fastapi_chat' / 'app.py'}:app"
    with Gateway(target, workers=2) as gateway, browser(tmp_path) as driver:
        wait = WebDriverWait(driver, WAIT_SECONDS, poll_frequency=0.05)
        driver.get(gateway.url)
        wait.until(lambda _: "connected to worker" in driver.find_element(By.ID, "state").text)
        place = driver.find_element(By.ID, "place")
        place.clear()
        place.send_keys("garden" + Keys.ENTER)
        wait.until(lambda _: driver.find_element(By.ID, "room").text == "# garden")
        wait.until(lambda _: "connected to worker" in driver.find_element(By.ID, "state").text)
        driver.find_element(By.ID, "text").send_keys("<b>hello</b>" + Keys.ENTER)
        wait.until(lambda _: "<b>hello</b>" in driver.find_element(By.ID, "log").text)
        assert not driver.get_log("browser")  # type: ignore[no-untyped-call]
