"""report.html in a real browser: map, links, filters, and no external resources."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.core.verdicts import TRAITS
from pytest_lmstrix.reports.page.fleet import SKIPPED
from tests.end_to_end.project import Project

webdriver = pytest.importorskip("selenium.webdriver")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1400,1000",
)  # fmt: skip
HOSTILE = "</div></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\" '"
Browser = Any
Open = Callable[[Path], None]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        if "CI" in os.environ:
            pytest.fail("the browser tests need Chromium and its driver")
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end its console messages and requests are checked."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    pages: list[str] = []

    def open_page(path: Path) -> None:
        pages.append(path.as_uri())
        browser.get(pages[-1])

    yield open_page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"].partition("#")[0].partition("?")[0]
             for event in events if event["method"] == "Network.requestWillBeSent"}  # fmt: skip
    assert {url for url in asked if not url.startswith(("data:", "chrome:"))} == set(pages)
    assert browser.execute_script("return window.hacked") is None


USERS = """
import pytest

@pytest.mark.lmstrix(match="rude")
def test_own(lmstrix_model):
    assert lmstrix_model.chat("Hello", max_tokens=200).text == "Hi"
"""


@pytest.fixture
def report(project: Project) -> Path:
    """Three models: a good one, one too big from 1,024 tokens, and a hostile one."""
    project.engine(
        good="",
        big="behaviours=(OutOfMemory(above=512),)",
        rude=f"behaviours=(Says(text={HOSTILE!r}),)",
    )
    project.manifest(
        "[{id: good, contexts: [512, 1024]}, {id: big, contexts: [512, 1024, 2048]},"
        " {id: rude, contexts: [512]}]"
    )
    project.pytester.makepyfile(test_own=USERS)
    project.run("--lmstrix", "--all").assert_outcomes(passed=3, failed=4)
    return project.path / "reports" / "report.html"


def cell(browser: Browser, model: str, size: str) -> Browser:
    """Return the link in the row of `model` and the column of `size`."""
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


def test_a_cell_has_a_sign_and_a_tooltip(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
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
    link = cell(browser, "good", "1,024")
    browser.execute_script("arguments[0].focus()", link)
    tip = browser.find_element("id", "lmstrix-tip")
    assert "good, full: ok" in tip.text
    link.send_keys(webdriver.Keys.ENTER)
    assert "test_full[good-1024]" in browser.switch_to.active_element.text
    assert not tip.is_displayed()


def test_the_map_has_a_skip_link(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    link = browser.find_element("css selector", ".lmstrix-skip")
    assert link.size["height"] == 1
    for _ in range(5):
        webdriver.ActionChains(browser).send_keys(webdriver.Keys.TAB).perform()
        if browser.switch_to.active_element == link:
            break
    assert browser.switch_to.active_element == link
    assert link.size["height"] > 10
    assert link.text == "Skip to the results"
    keys = webdriver.Keys.ENTER, webdriver.Keys.TAB
    webdriver.ActionChains(browser).send_keys(*keys).perform()
    assert browser.switch_to.active_element.get_attribute("class") == "filter"


def test_printed_reports_are_complete_coloured_and_without_controls(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
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


def styled(browser: Browser, selector: str, name: str) -> str:
    style = "getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    value: str = browser.execute_script(f"return {style}", selector, name)
    return value


def test_a_cell_link_expands_its_row_even_if_filtered_out(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
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


def test_filters_and_sorting_work(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
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
    browser.find_element("id", "show_all_details").click()
    said = browser.find_elements("css selector", ".lmstrix-details q")
    assert any("<script>window.hacked=1" in each.text for each in said)
    assert browser.find_elements("css selector", "img[src=x]") == []


def test_reason_and_hint_are_in_the_row(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    cell(browser, "big", "1,024").click()
    here = browser.find_element("css selector", ".lmstrix-here")
    row_text = here.find_element("xpath", "following-sibling::tr").text
    assert "full: out_of_memory" in row_text
    assert "Try a smaller context or a lighter KV cache" in row_text


def test_plots_name_their_values(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    titles = browser.find_elements("css selector", ".lmstrix-plots .dots title")
    texts = [title.get_attribute("textContent") for title in titles]
    assert "good at 512: 0.02 s" in texts
    assert browser.find_elements("css selector", ".lmstrix-plots script") == []


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


def test_many_models_can_be_searched(browser: Browser, opened: Open, project: Project) -> None:
    names = [f"model-{n}" for n in range(20)]
    project.engine(**dict.fromkeys(names, ""))
    project.manifest(f"[{', '.join(f'{{id: {name}, contexts: [512]}}' for name in names)}]")
    project.run("--lmstrix")
    opened(project.path / "reports" / "report.html")
    browser.find_element("id", "lmstrix-find").send_keys("19")
    shown = [row.text for row in browser.find_elements("css selector", "#lmstrix-map tbody tr")
             if row.is_displayed()]  # fmt: skip
    assert len(shown) == 1
    assert shown[0].startswith("model-19")
