"""Parts of an opened report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Browser = Any
Open = Callable[[Path], None]


def unfold(browser: Browser, selector: str) -> None:
    """Open the map or the table of tests, as a reader does."""
    browser.find_element("css selector", f"{selector} > summary").click()


def cell(browser: Browser, model: str, size: str) -> Browser:
    """Return the link in the row of `model` and the column of `size` of the opened map."""
    headings = [
        each.text for each in browser.find_elements("css selector", "#lmstrix-map thead th")
    ]
    for row in browser.find_elements("css selector", "#lmstrix-map tbody tr"):
        if row.find_element("css selector", "th").text == model:
            columns = row.find_elements("css selector", "th, td")
            return columns[headings.index(size)].find_element("css selector", "a")
    pytest.fail(f"no row of {model}")


def rows(browser: Browser) -> list[str]:
    return [row.text for row in browser.find_elements("css selector", "#results-table .col-testId")]


def styled(browser: Browser, selector: str, name: str) -> str:
    style = "getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    value: str = browser.execute_script(f"return {style}", selector, name)
    return value


def shown(browser: Browser) -> list[str]:
    """The names of the models that the table shows, in order."""
    names = "#lmstrix-models > tbody:not([hidden]) > tr > th > button"
    return [each.text for each in browser.find_elements("css selector", names)]


def choose(browser: Browser, kind: str) -> None:
    box = browser.find_element("css selector", f"input[name=lmstrix-show][value={kind}]")
    box.find_element("xpath", "..").click()
