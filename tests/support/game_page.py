"""The page of examples/game as a test sees it: what a player reads, presses, and what the page has heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

WAIT_SECONDS = 20.0
"""For what should take milliseconds, on a machine that has better things to do."""

T = TypeVar("T")


class GamePage:
    """The page in one browser, at its lobby."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        driver.set_window_size(1280, 820)
        driver.get(url)
        self.wait(lambda: self.value("name"), "the lobby has not said who I am")

    def wait(self, condition: Callable[[], T], what: str) -> T:
        """Wait until `condition` holds; `what` says in the error what did not come about."""
        return WebDriverWait(self.driver, WAIT_SECONDS, poll_frequency=0.05).until(lambda _: condition(), what)

    def rename(self, name: str) -> None:
        """Be called otherwise, and wait until the server has heard it."""
        field = self.driver.find_element(By.ID, "name")
        field.clear()
        field.send_keys(name + Keys.ENTER)
        self.wait(lambda: self.value("name") == name, "the name is not saved")

    def begin(self) -> str:
        """Press "New match", and wait until it is seen; its id."""
        self.driver.find_element(By.ID, "new").click()
        self.wait_playing()
        return self.driver.current_url.partition("#")[2]

    def join(self, id: str) -> None:
        """Follow the match's link in the lobby, when it is there."""
        self.wait(lambda: self.link(id), "the match is not listed")
        self.driver.find_element(By.CSS_SELECTOR, f'[data-id="{id}"] a').click()
        self.wait_playing()

    def listed(self, id: str) -> list[str]:
        """What the lobby's row for the match says, piece by piece; empty: there is none."""
        return self._of_row(id, "*", "textContent")

    def link(self, id: str) -> str | None:
        """Where that row's link leads, if there is one."""
        return next(iter(self._of_row(id, "a", "href")), None)

    def _of_row(self, id: str, selector: str, property: str) -> list[str]:
        # At once: the lobby replaces its rows every second.
        rows = f"""[...document.querySelectorAll('[data-id="{id}"] > {selector}')]"""
        found: list[str] = self.driver.execute_script(f"return {rows}.map((one) => one.{property})")
        return found

    def wait_playing(self) -> None:
        """Wait until one's own ship was in a snapshot."""
        self.wait(lambda: self.seen and self.me in self.ships, "no snapshot has come with my ship")

    def hold(self, *keys: str) -> None:
        """Press `keys` and keep them down."""
        for key in keys:
            ActionChains(self.driver).key_down(key).perform()

    def release(self, *keys: str) -> None:
        """Let them go."""
        for key in keys:
            ActionChains(self.driver).key_up(key).perform()

    @property
    def seen(self) -> dict[str, Any] | None:
        """What the page has heard last, and where it draws its own ship; None in the lobby."""
        seen: dict[str, Any] | None = self.driver.execute_script("return globalThis.game.seen ?? null")
        return seen if seen and seen["newest"] else None

    @property
    def me(self) -> int:
        """The number of one's own ship."""
        assert self.seen is not None
        return int(self.seen["me"])

    @property
    def ships(self) -> dict[int, dict[str, Any]]:
        """The ships of the newest snapshot."""
        assert self.seen is not None
        return {ship["id"]: ship for ship in self.seen["newest"]["ships"]}

    @property
    def shots(self) -> list[dict[str, Any]]:
        """The shots of the newest snapshot."""
        assert self.seen is not None
        return list(self.seen["newest"]["shots"])

    def text(self, id: str) -> str:
        """What an element says."""
        return self.driver.find_element(By.ID, id).text

    def value(self, id: str) -> str:
        """What stands in a field."""
        return str(self.driver.find_element(By.ID, id).get_property("value"))

    def console(self) -> str:
        """What the browser has complained of since it was last asked."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return "\n".join(entry["message"] for entry in entries)

    def run(self, module: str, script: str, *arguments: Any) -> Any:
        """The value of `script`, the body of a function of `arguments`; `module` of the page is its variable `it`."""
        return self.driver.execute_async_script(
            f"const [values, done] = [[...arguments].slice(0, -1), arguments[arguments.length - 1]];"
            f"import(new URL('/{module}', location.href)).then((it) => (function (...args) {{ {script} }})(...values))"
            ".then(done, (error) => done({ error: String(error) }));",
            *arguments,
        )
