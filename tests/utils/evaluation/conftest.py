"""A browser for the tests of pages, at any size of screen."""

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
def browser(started: Any) -> Any:
    set_screen(started, 1000, 900)
    started.get_log("browser")
    return started


@pytest.fixture(params=SCREENS)
def any_screen(started: Any, request: pytest.FixtureRequest) -> Any:
    width, height, touch = SCREENS[request.param]
    set_screen(started, width, height, touch=touch)
    started.get_log("browser")
    return started
