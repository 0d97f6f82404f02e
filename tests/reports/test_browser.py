"""report.html in a real browser: table of models, map, tests, and no external resources."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.core.verdicts import TRAITS
from pytest_lmstrix.reports.page.fleet import SKIPPED
from tests.end_to_end.project import Project

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait

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


def styled(browser: Browser, selector: str, name: str) -> str:
    style = "getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    value: str = browser.execute_script(f"return {style}", selector, name)
    return value


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


def test_reason_and_hint_are_in_the_row(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, ".map")
    cell(browser, "big", "1,024").click()
    here = browser.find_element("css selector", ".lmstrix-here")
    row_text = here.find_element("xpath", "following-sibling::tr").text
    assert "full: out_of_memory" in row_text
    assert "Try a smaller context or a lighter KV cache" in row_text


def test_plots_name_their_values(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, ".map")
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


@pytest.fixture
def many(project: Project) -> Path:
    """22 models: every third is too big from 1,024 tokens, one is missing; half have a tag."""
    names = [f"model-{n:02}" for n in range(22)]
    behaviours = dict.fromkeys(range(0, 22, 3), "behaviours=(OutOfMemory(above=512),)")
    behaviours[21] = "behaviours=(MissingFromDisk(),)"
    project.engine(**{name: f"max_context_length=1024, {behaviours.get(n, '')}"
                      for n, name in enumerate(names)})  # fmt: skip
    entries = ", ".join(
        f"{{id: {name}, contexts: [512, 1023], tags: [{'even' if n % 2 == 0 else 'odd'}]}}"
        for n, name in enumerate(names)
    )
    project.manifest(f"[{entries}]")
    project.run("--lmstrix")
    return project.path / "reports" / "report.html"


def shown(browser: Browser) -> list[str]:
    """The names of the models that the table shows, in order."""
    names = "#lmstrix-models > tbody:not([hidden]) > tr > th > button"
    return [each.text for each in browser.find_elements("css selector", names)]


def choose(browser: Browser, kind: str) -> None:
    box = browser.find_element("css selector", f"input[name=lmstrix-show][value={kind}]")
    box.find_element("xpath", "..").click()


def test_the_headline_comes_first_and_failures_lead_the_table(
    browser: Browser, opened: Open, many: Path
) -> None:
    opened(many)
    lead = browser.find_element("css selector", "#lmstrix .lead").text
    assert lead == "14 of 22 work at their declared context, 7 below it, 1 not at all"
    assert shown(browser)[0] == "model-21"
    assert browser.find_element("id", "lmstrix-count").text == "22 of 22 models"
    (group,) = [each for each in browser.find_elements("css selector", ".todo .causes > li")
                if "Out of memory" in each.text]  # fmt: skip
    assert "7 models, full at 1,023" in group.text
    assert "Try a smaller context or a lighter KV cache" in group.text


def test_the_first_rows_are_shown_until_all_are_asked_for(
    browser: Browser, opened: Open, many: Path
) -> None:
    opened(many)
    assert len(shown(browser)) == 10
    browser.find_element("id", "lmstrix-all").click()
    assert len(shown(browser)) == 22
    assert not browser.find_element("id", "lmstrix-all").is_displayed()


def test_models_are_filtered_by_text_state_and_tag(
    browser: Browser, opened: Open, many: Path
) -> None:
    opened(many)
    find = browser.find_element("id", "lmstrix-find")
    find.send_keys("MODEL 19")
    assert shown(browser) == ["model-19"]
    find.clear()
    find.send_keys(webdriver.Keys.BACKSPACE)
    choose(browser, "below")
    partly = [f"model-{n:02}" for n in range(0, 21, 3)]
    assert shown(browser) == partly
    browser.find_element("css selector", "#lmstrix-tag option:nth-child(2)").click()
    assert shown(browser) == partly[::2]
    assert browser.find_element("id", "lmstrix-count").text == "4 of 22 models"
    choose(browser, "not_at_all")
    assert shown(browser) == []


def test_columns_sort_both_ways_and_say_so(browser: Browser, opened: Open, many: Path) -> None:
    opened(many)
    headings = browser.find_elements("css selector", "#lmstrix-models > thead th[aria-sort]")
    assert {each.get_attribute("aria-sort") for each in headings} == {"none"}
    recommended = next(each for each in headings if "recommended" in each.text)
    button = recommended.find_element("css selector", "button")
    button.send_keys(webdriver.Keys.ENTER)
    assert recommended.get_attribute("aria-sort") == "ascending"
    assert shown(browser)[:2] == ["model-00", "model-03"]
    button.send_keys(webdriver.Keys.ENTER)
    assert recommended.get_attribute("aria-sort") == "descending"
    assert shown(browser)[0] == "model-01"
    browser.find_element("id", "lmstrix-all").click()
    assert shown(browser)[-1] == "model-21"  # without a value
    headings[0].find_element("css selector", "button").click()
    assert recommended.get_attribute("aria-sort") == "none"
    assert shown(browser) == [f"model-{n:02}" for n in range(22)]


def test_a_model_opens_by_keyboard_with_replies_reasons_and_history(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    button = browser.find_element("css selector", "#lmstrix-models > tbody > tr > th > button")
    assert button.text == "rude"
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys(webdriver.Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    more = browser.find_element("css selector", "#lmstrix-models .more").text
    assert "test_own at 512: wrong answer" in more
    assert "full at 512: wrong answer" in more
    assert "<script>window.hacked=1" in more
    assert "1 run" in more
    button.send_keys(webdriver.Keys.ENTER)
    assert not browser.find_element("css selector", "#lmstrix-models .more").is_displayed()


def test_a_problem_links_to_its_model_even_if_it_is_filtered_out(
    browser: Browser, opened: Open, report: Path
) -> None:
    opened(report)
    browser.find_element("id", "lmstrix-find").send_keys("good")
    assert shown(browser) == ["good"]
    browser.find_element("link text", "big").click()
    assert "big" in browser.switch_to.active_element.text
    assert "full at 1,024" in browser.find_element("css selector", ".open .more").text


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
