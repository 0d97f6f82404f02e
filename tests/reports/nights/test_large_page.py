"""The page of 300 models and 60 nights: small, filtered, and readable at any width."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.browser.page import Browser, Open
from tests.reports.nights.test_page import night, page_of

MOST_BYTES = 700_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 300 models and 60 nights, of which many broke."""
    path = tmp_path_factory.mktemp("large")
    results = [
        night(number, f"a-model-with-a-long-name-{model}-instruct-q4_k_m",
              "ok" if (model * 7 + number // (1 + model % 9)) % 5 else "recall_failed",
              host=None if model % 3 else "studio.local:1234")
        for number in range(69, -1, -1)
        for model in range(300)
    ]  # fmt: skip
    text = page_of(path, results)
    target = path / "index.html"
    target.write_text(text, encoding="utf-8")
    return target


def test_the_page_of_300_models_and_60_nights_is_small(large: Path) -> None:
    text = large.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert text.count("<tr") == 2 * 2 + 2 + 300
    assert text.count('abbr="') == 2 * 60


def test_the_models_are_filtered_by_text_and_state(
    browser: Browser,
    opened: Open,
    large: Path,
) -> None:
    opened(large)
    shown = browser.find_element("id", "shown")
    assert shown.text == "300 of 300 shown"
    browser.find_element("id", "text").send_keys("long-name-17")
    assert shown.text == "11 of 300 shown"
    browser.find_element("id", "failing").click()
    failing = browser.find_elements("css selector", ".models tbody tr:not([hidden])")
    assert 0 < len(failing) < 11
    assert shown.text == f"{len(failing)} of 300 shown"
    letters = {row.find_elements("css selector", "td")[2].text for row in failing}
    assert letters == {"R"}


@pytest.mark.parametrize("width", [390, 1400])
def test_only_the_tables_scroll_sideways(
    browser: Browser,
    opened: Open,
    large: Path,
    width: int,
) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500,
    })  # fmt: skip
    try:
        opened(large)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        rest = browser.execute_script(
            "const box = document.querySelector('.models').parentElement;"
            "box.scrollLeft = 300; const head = box.querySelector('tbody th');"
            "return [head.getBoundingClientRect().left - box.getBoundingClientRect().left,"
            " box.tabIndex, box.getAttribute('role')]"
        )
        assert abs(rest[0]) < 3, "the names stay visible"
        assert rest[1:] == [0, "region"]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
