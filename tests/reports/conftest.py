"""A run with every feature that reports show, golden files, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, Result
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.regressions import compare
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.run_json import CaseReport, RunReport, model_report
from tests.registry.results import a_result
from tests.reports.browser.page import Browser, Open

GOLDEN = Path(__file__).parent / "golden"
STARTED = datetime(2026, 3, 2, 4, tzinfo=UTC)
HOSTILE = "<script>alert('hi')</script> | [x](https://evil.test) `\x1b[31m"
NOW = (
    a_result(30_000, model="llama", run="now", load_seconds=2.5, ttft_seconds=0.25,
             decode_tokens_per_second=40.0, granted_context_length=30_208, prompt_tokens=31,
             peak_memory_bytes=4_100_000_000, replies=("96", "5")),
    a_result(60_000, "out_of_memory", model="llama", run="now", detail="cannot allocate 9 GB"),
    a_result(8_191, model="tiny", run="now", check="deep", seed=7, load_seconds=0.5,
             ttft_seconds=31.0, decode_tokens_per_second=20.0,
             recall={"0.05": True, "0.5": False, "0.95": True}),
    a_result(8_191, "wrong_answer", model=HOSTILE, run="now", detail=HOSTILE, replies=(HOSTILE,)),
    a_result(8_191, "model_not_found", model="lost", run="now", fingerprint=None,
             detail="No model found"),
)  # fmt: skip
BEFORE = (
    a_result(60_000, model="llama"),
    a_result(8_191, "crashed", model="tiny", check="deep"),
    a_result(8_191, model="lost"),
    *(a_result(8_191, model="tiny", check="deep", decode_tokens_per_second=speed)
      for speed in (39.0, 40.0, 42.0)),
)  # fmt: skip

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1400,1000",
)  # fmt: skip


def a_run(registry: Registry, now: tuple[Result, ...] = NOW) -> RunReport:
    """`now` after `BEFORE`."""
    history = History()
    for old in BEFORE:
        history.add(old)
    registry.append_many((*BEFORE, *now))
    ids = list(dict.fromkeys(result.model for result in now))
    models = [Model(id=model, engine="lmstudio", context_limit=131_072) for model in ids]
    cases = [
        CaseReport(
            node_id=f"models.yaml::test_{result.check}[{result.model}-{result.context_length}]",
            outcome=result.outcome,
            reason=""
            if result.outcome == "passed"
            else Failure(result.detail, verdict=result.verdict).explain(),
            results=(result,),
        )
        for result in now
    ]
    return RunReport(
        run="now",
        started=STARTED,
        finished=STARTED + timedelta(minutes=12, seconds=30),
        machine="0123456789ab",
        versions={"pytest-lmstrix": "0.1.0", "pytest": "9.2.0", "python": "3.11.7"},
        exit_status=1,
        counts={"passed": 2, "failed": 2, "xfailed": 1, "skipped": 1},
        models=tuple(
            model_report(
                model,
                [r for r in now if r.model == model.id],
                registry.status(model.id),
                since=registry.since(model.id),
            )
            for model in models
        ),
        cases=(
            *cases,
            CaseReport(
                node_id="models.yaml::test_full[llama-80000]",
                outcome="skipped",
                reason="fails at 60,000",
            ),
        ),
        changes=compare(now, history),
        fail_on_regression=25.0,
    )


@pytest.fixture
def run(tmp_path: Path) -> RunReport:
    return a_run(Registry(tmp_path / "registry.jsonl"))


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares text with a file of `golden/`; if UPDATE_GOLDEN is set, writes it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if "UPDATE_GOLDEN" in os.environ:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert text == path.read_text(encoding="utf-8"), f"if {name} is to change: UPDATE_GOLDEN=1"

    return check


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver")
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
