"""The headline, the problems and the table of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.browser.page import Browser, Open, cell, choose, shown, unfold

webdriver = pytest.importorskip("selenium.webdriver")


def test_reason_and_hint_are_in_the_row(browser: Browser, opened: Open, report: Path) -> None:
    opened(report)
    unfold(browser, ".map")
    cell(browser, "big", "1,024").click()
    here = browser.find_element("css selector", ".lmstrix-here")
    row_text = here.find_element("xpath", "following-sibling::tr").text
    assert "full: out_of_memory" in row_text
    assert "Try a smaller context or a lighter KV cache" in row_text


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
