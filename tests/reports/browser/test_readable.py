"""Contrast, print, phones and keyboards."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import TRAITS
from pytest_lmstrix.reports.page.fleet import SKIPPED
from tests.reports.browser.page import Browser, Open, styled, unfold

webdriver = pytest.importorskip("selenium.webdriver")


def test_the_page_has_a_skip_link(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    link = browser.find_element("css selector", ".lmstrix-skip")
    assert link.size["height"] == 1
    for _ in range(5):
        webdriver.ActionChains(browser).send_keys(webdriver.Keys.TAB).perform()
        if browser.switch_to.active_element == link:
            break
    assert browser.switch_to.active_element == link
    assert link.size["height"] > 10
    assert link.text == "Skip to the tests"
    keys = webdriver.Keys.ENTER, webdriver.Keys.TAB
    webdriver.ActionChains(browser).send_keys(*keys).perform()
    assert browser.switch_to.active_element.get_attribute("class") == "filter"


def test_printed_reports_are_complete_coloured_and_without_controls(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    unfold(browser, ".map")
    map_around = ".lmstrix-scroll"
    assert styled(browser, map_around, "overflow") == "auto"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert styled(browser, map_around, "overflow") == "visible"
        assert styled(browser, map_around, "max-height") == "none"
        assert styled(browser, "#lmstrix-map td a", "print-color-adjust") == "exact"
        assert styled(browser, "#lmstrix-map tbody th", "position") == "static"
        assert styled(browser, "#lmstrix-map tbody tr", "break-inside") == "avoid"
        for control in (".controls", ".filter", ".logexpander"):
            assert styled(browser, control, "display") == "none", control
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_sheet_of_paper_holds_many_models(browser: Browser, opened: Open, many: Path) -> None:
    opened(many)
    sheet = {"landscape": True, "paperWidth": 8.27, "paperHeight": 11.7}
    printed = browser.execute_cdp_cmd("Page.printToPDF", sheet)["data"]
    pages = len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed)))
    assert 1 <= pages <= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_are_readable(
    browser: Browser, opened: Open, report: Path, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened(report)
    for selector in ("#lmstrix-map tbody th", "#results-table td", "#lmstrix-map td a",
                     ".lmstrix-plots text", ".lmstrix-details p"):  # fmt: skip
        assert contrast(browser, selector) >= LEAST_CONTRAST, selector
    for family in sorted({*(traits.family for traits in TRAITS.values()), SKIPPED[1]}):
        for selector in ("#lmstrix-map td a", ".lmstrix-legend i"):
            change = "document.querySelector(arguments[0]).className = arguments[1]"
            browser.execute_script(change, selector, f"lmstrix-{family}")
            assert contrast(browser, selector) >= LEAST_CONTRAST, (family, selector)
    for outcome in ("passed", "failed"):
        assert contrast(browser, f"tbody.{outcome} .col-result") >= LEAST_CONTRAST, outcome


LEAST_CONTRAST = 4.5
CONTRAST = """
const luminance = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
let behind = document.querySelector(arguments[0])
const style = getComputedStyle(behind)
const text = luminance(behind instanceof SVGElement ? style.fill : style.color)
const clear = (element) => /rgba.*, 0\\)/.test(getComputedStyle(element).backgroundColor)
while (behind.parentElement && clear(behind)) behind = behind.parentElement
const page = luminance(getComputedStyle(behind).backgroundColor)
return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05)
"""
"""Source: WCAG 2, relative luminance and contrast ratio; 3 would do for text of 19 px in bold."""


def contrast(browser: Browser, selector: str) -> float:
    ratio: float = browser.execute_script(CONTRAST, selector)
    return ratio


def test_a_phone_shows_the_page_without_scrolling_sideways(
    browser: Browser, opened: Open, report: Path
) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        opened(report)
        buttons = "#lmstrix-models > tbody > tr > th > button"
        for button in browser.find_elements("css selector", buttons):
            button.click()
        width = "return [document.documentElement.scrollWidth, innerWidth]"
        assert browser.execute_script(width) == [390, 390]
        assert browser.find_element("css selector", "[data-sort=number]").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
