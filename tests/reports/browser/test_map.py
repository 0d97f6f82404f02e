"""The map of models and sizes, and the plots."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.browser.page import Browser, Open, cell, rows, unfold

webdriver = pytest.importorskip("selenium.webdriver")


def test_a_cell_has_a_sign_and_a_tooltip(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, ".map")
    tip = browser.find_element("id", "lmstrix-tip")
    assert not tip.is_displayed()
    assert cell(browser, "good", "512").text == "✓"
    bad = cell(browser, "big", "1,024")
    assert bad.text == "M"
    webdriver.ActionChains(browser).move_to_element(bad).perform()
    assert tip.is_displayed()
    for text in ("big, full: out_of_memory", "asked 1,024 tokens", "TTFT", "peak memory"):
        assert text in tip.text
    assert bad.get_attribute("aria-label").startswith("big, full: out_of_memory")


def test_cells_and_rows_are_keyboard_accessible(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    unfold(browser, ".map")
    link = cell(browser, "good", "1,024")
    browser.execute_script("arguments[0].focus()", link)
    tip = browser.find_element("id", "lmstrix-tip")
    assert "good, full: ok" in tip.text
    link.send_keys(webdriver.Keys.ENTER)
    assert "test_full[good-1024]" in browser.switch_to.active_element.text
    assert not tip.is_displayed()


def test_a_cell_link_expands_its_row_even_if_filtered_out(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    unfold(browser, ".map")
    unfold(browser, "#lmstrix-tests")
    assert len(rows(browser)) == 7
    browser.find_element("css selector", "input[data-test-result=passed]").click()
    assert all("good" not in row for row in rows(browser))
    cell(browser, "good", "512").click()
    here = browser.find_element("css selector", ".lmstrix-here")
    assert "models.yaml::test_full[good-512]" in here.text
    details = here.find_element("xpath", "following-sibling::tr")
    assert details.is_displayed()
    assert "Replies:" in details.text
    assert "96" in details.text
    assert len(rows(browser)) == 7


def test_plots_name_their_values(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, ".map")
    titles = browser.find_elements("css selector", ".lmstrix-plots .dots title")
    texts = [title.get_attribute("textContent") for title in titles]
    assert "good at 512: 0.02 s" in texts
    assert browser.find_elements("css selector", ".lmstrix-plots script") == []
