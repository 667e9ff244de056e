"""The system's Chromium, and pages in it that are watched."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Of pages, in pixels: a desk's and a phone's.
WIDTHS = (1400, pytest.param(400, marks=pytest.mark.slow))
UNTESTED = "NOT TESTED in a browser"


@contextmanager
def start_browser() -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none. Playwright downloads nothing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        pytest.skip(f"{UNTESTED}: {error}; pip install playwright, which is in dev.lock")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"{UNTESTED}: none of {', '.join(NAMES)} is on PATH; install Debian's chromium")
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


def open_watched(browser: Any, width: int, height: int = 1000) -> tuple[Any, list[str], list[str]]:
    """A new page of that size in pixels, the addresses it requests, and its errors and warnings."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    requested: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requested.append(request.url.partition("#")[0]))
    page.on("console", lambda m: m.type in ("error", "warning") and errors.append(m.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    return page, requested, errors


def draw_charts(page: Any) -> list[Any]:
    """Scroll to each visible chart until it is drawn; returns their places."""
    places = page.locator("[data-chart]:visible").all()
    for place in places:
        place.scroll_into_view_if_needed()
        page.wait_for_function("e => e.hasAttribute('data-drawn')", arg=place.element_handle())
        assert place.locator("canvas").count() > 0
    return places
