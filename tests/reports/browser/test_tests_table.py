"""The table of tests, and what is unpacked when it is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.project import Project
from tests.reports.browser.page import Browser, Open, cell, rows, unfold

WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait


def test_filters_and_sorting_work(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, "#lmstrix-tests")
    browser.find_element("css selector", "input[data-test-result=failed]").click()
    assert len(rows(browser)) == 3
    browser.find_element("css selector", "input[data-test-result=failed]").click()
    heading = "th[data-column-type=lmstrix_context]"
    browser.find_element("css selector", heading).click()
    found = [each.text for each in browser.find_elements("css selector", ".col-lmstrix_context")]
    sizes = [int(text.split()[0].replace(",", "")) for text in found]
    assert sizes == sorted(sizes)
    assert set(sizes) == {512, 1024, 2048}


def test_model_output_is_displayed_as_inert_text(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    unfold(browser, "#lmstrix-tests")
    browser.find_element("id", "show_all_details").click()
    said = browser.find_elements("css selector", ".lmstrix-details q")
    assert any("<script>window.hacked=1" in each.text for each in said)
    assert browser.find_elements("css selector", "img[src=x]") == []


def test_the_table_of_tests_is_last_and_closed(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    tests = browser.find_element("id", "lmstrix-tests")
    assert tests.get_attribute("open") is None
    assert not browser.find_element("id", "results-table").is_displayed()
    ends = "return [...document.querySelectorAll('#lmstrix, #lmstrix-tests')].map((e) => e.id)"
    assert browser.execute_script(ends) == ["lmstrix", "lmstrix-tests"]
    unfold(browser, "#lmstrix-tests")
    assert len(rows(browser)) == 7


def test_large_details_and_maps_are_unpacked_when_opened(
    browser: Browser, opened: Open, many: Path, monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    monkeypatch.setattr("pytest_lmstrix.reports.page.render.PACKED_FROM", 1)
    project.run("--lmstrix", "--all")
    opened(many)
    button = browser.find_element("css selector", "#lmstrix-models > tbody > tr > th > button")
    button.click()
    wait = WebDriverWait(browser, 10)
    wait.until(lambda _: "model not found" in browser.find_element("css selector", ".more").text)
    unfold(browser, ".map")
    wait.until(lambda _: browser.find_elements("id", "lmstrix-map"))
    assert cell(browser, "model-01", "512").text == "✓"
