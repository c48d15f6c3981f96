"""The chat page as a test sees it: what a visitor reads and does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_SECONDS = 20.0
"""For what should take milliseconds, on a machine that has better things to do."""

T = TypeVar("T")


class ChatPage:
    """The page in one browser, opened and connected."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        driver.get(url)
        self.wait_connected()

    def wait(self, condition: Callable[[], T], what: str) -> T:
        """Wait until `condition` holds; `what` says in the error what did not come about."""
        return WebDriverWait(self.driver, WAIT_SECONDS, poll_frequency=0.05).until(lambda _: condition(), what)

    def wait_connected(self) -> None:
        """Wait until the server's first message has come."""
        self.wait(lambda: self.state == "open", "the page is not connected")

    def reload(self) -> None:
        """Load the page anew and wait until it is connected."""
        self.driver.refresh()
        self.wait_connected()

    def say(self, text: str) -> None:
        """Type `text` and press Enter."""
        self._find("text").send_keys(text + Keys.ENTER)

    def rename(self, name: str) -> None:
        """Take another name, and wait until the server has told it."""
        field = self._find("name")
        field.clear()
        field.send_keys(name + Keys.ENTER)
        self.wait_for_text(f"is now {name}")

    def wait_for_text(self, text: str) -> None:
        """Wait until the log contains `text`."""
        self.wait(lambda: text in self.log, f"{text!r} is not in the log")

    def console(self) -> str:
        """What the browser has written to its console since it was last asked."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return "\n".join(entry["message"] for entry in entries)

    @property
    def state(self) -> str | None:
        """open, connecting, waiting or ended."""
        return self._find("state").get_attribute("data-state")

    @property
    def log(self) -> str:
        """All that was said."""
        return self._find("log").text

    @property
    def typed(self) -> str:
        """What stands in the message box."""
        return str(self._find("text").get_property("value"))

    @property
    def name(self) -> str:
        """The visitor's own name."""
        return str(self._find("name").get_property("value"))

    @property
    def served(self) -> dict[str, str]:
        """{"worker": "1 of 2", "session": "ab12", "visit": "3"}."""
        parts = self._find("served").text.split(" · ")
        return {word: fact for word, _, fact in (part.partition(" ") for part in parts)}

    def _find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)
