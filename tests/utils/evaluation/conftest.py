"""A browser for the tests of pages, with several screen sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.utils.evaluation.browser import chromium, set_screen

SCREENS = {1440: (1440, 900, False), 1024: (1024, 768, False), 390: (390, 844, True)}


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(started: Any) -> Iterator[Any]:
    """A window; tests that expect errors in the browser's log must read them before they end."""
    yield from _without_complaints(started, 1000, 900, False)


@pytest.fixture(params=SCREENS)
def any_screen(started: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from _without_complaints(started, *SCREENS[request.param])


def _without_complaints(browser: Any, width: int, height: int, touch: bool) -> Iterator[Any]:
    set_screen(browser, width, height, touch=touch)
    browser.get_log("browser")
    yield browser
    assert browser.get_log("browser") == []
