"""What report.html costs: `python benchmarks/report.py [MODELS] [FOLDER]`, by default 300 models.

Each model is tested at two sizes after twenty earlier runs, with measured speeds; one in four has a
problem. With Chromium and its driver, the time to open the page is measured too.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from measuring import ROOT, run_pytest, seconds

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.system.machine_id import machine_id

RUNS = 20
SIZES = (8_192, 32_767)
NAMES = ("llama-3.2-3b-instruct", "qwen3-4b-thinking-2507", "gemma-3-12b-it-qat", "phi-4-mini",
         "mistral-small-3.2-24b", "smollm2-135m", "deepseek-r1-distill-qwen-7b")  # fmt: skip
TROUBLES = {
    5: "Guardrail(above=10_000)",
    9: "OutOfMemory(above=10_000)",
    13: "MissingFromDisk()",
    17: "Gibberish(above=10_000)",
    29: "Corrupted()",
    31: "CrashesAbove(above=100)",
}
"""Every so many models have this behaviour of the stand-in."""
CONFTEST = """
import sys
sys.path.insert(0, {root!r})
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import *
from tests.standin.lmstudio.models.model import StandInModel

def pytest_lmstrix_engines(config):
    return [FakeEngine(({models}))]
"""


def main() -> None:
    """Print the size of the page, the duration of the run, and the time to open the page."""
    count = int(next(iter(sys.argv[1:2]), 300))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(next(iter(sys.argv[2:]), name))
        write_project(folder, count)
        run = seconds(lambda: run_pytest(folder, "--lmstrix", "--lmstrix-all", check=False))
        page = folder / "reports" / "report.html"
        print(f"{count} models, {count * len(SIZES)} tests: run {run:.1f} s")
        print(f"report.html: {page.stat().st_size / 1e6:.2f} MB")
        opened = seconds_to_open(page)
        print(f"opened in {opened:.2f} s" if opened is not None else "no Chromium: not opened")


def write_project(folder: Path, count: int) -> None:
    """Write the manifest, the engine, and the registry of earlier runs."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [model_name(number) for number in range(count)]
    made = "".join(
        f"StandInModel(key={name!r}, max_context_length={SIZES[-1] + 1},"
        f" size_bytes={size_bytes(number)}, behaviours=({behaviour(number)},)),"
        if behaviour(number)
        else f"StandInModel(key={name!r}, max_context_length={SIZES[-1] + 1},"
        f" size_bytes={size_bytes(number)}),"
        for number, name in enumerate(names)
    )
    (folder / "conftest.py").write_text(
        CONFTEST.format(root=str(ROOT), models=made), encoding="utf-8"
    )
    entries = "".join(
        f"  - {{id: {name}, contexts: [{', '.join(map(str, SIZES))}],"
        f" tags: [{'small' if number % 3 else 'large'}]}}\n"
        for number, name in enumerate(names)
    )
    (folder / "models.yaml").write_text(
        f"defaults: {{engine: fake}}\nmodels:\n{entries}", encoding="utf-8"
    )
    reports = folder / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    lines = (encode(line) for run in range(RUNS) for line in earlier_run(run, names))
    (reports / "registry.jsonl").write_bytes(b"".join(lines))


def model_name(number: int) -> str:
    turn, place = divmod(number, len(NAMES))
    return f"{NAMES[place]}-v{turn}" if turn else NAMES[place]


def size_bytes(number: int) -> int:
    return 500_000_000 + number * 37 % 100 * 90_000_000


def behaviour(number: int) -> str:
    return next((text for each, text in TROUBLES.items() if number % each == each - 1), "")


def earlier_run(run: int, names: list[str]) -> list[Result]:
    """Return what one of the earlier runs found: some that fail now worked then, or never did."""
    at = datetime.now(UTC) - timedelta(days=2 * (RUNS - run))
    found = []
    for number, name in enumerate(names):
        weights = f"size:{size_bytes(number)} path:publisher/{name}/{name}.gguf"
        broken = bool(behaviour(number)) and (number % 2 == 0 or run > 12)
        for place, size in enumerate(SIZES):
            bad = broken and (place == 1 or number % 4 == 2)
            verdict = Verdict.OUT_OF_MEMORY if bad else Verdict.OK
            base = Result(
                run=f"earlier-{run:02}", at=at + timedelta(seconds=number), model=name,
                engine="fake", host="fake", fingerprint=weights, machine=machine_id(),
                engine_version=None, check="full", context_length=size,
                granted_context_length=size, verdict=verdict, outcome=verdict.outcome,
                detail="cannot allocate 12 GB" if bad else "",
                peak_memory_bytes=size_bytes(number) + size * 40_000,
                estimated_memory_bytes=size_bytes(number) + size * 41_000,

            )  # fmt: skip
            found.append(base)
            if run == RUNS - 1 and not bad:
                speed = 900 / (10 + number % 40)
                found.append(
                    msgspec.structs.replace(
                        base, check="speed", ttft_seconds=size / 2_000, prefill_tokens=512,
                        decode_tokens=128, prefill_tokens_per_second=speed * 20 / (1 + place),
                        decode_tokens_per_second=speed / (1 + place / 3),
                    )
                )  # fmt: skip
            if run == RUNS - 1 and number % 6 == 0 and not bad:
                depths = ("0.05", "0.25", "0.5", "0.75", "0.95")
                recall = {
                    depth: (number + n) % 5 > 0 or not place for n, depth in enumerate(depths)
                }
                found.append(msgspec.structs.replace(base, check="deep", recall=recall))
    return found


def seconds_to_open(page: Path) -> float | None:
    """Return the median time of five loads in Chromium, to the end of the load event."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        taken = []
        for _ in range(5):
            browser.get(page.as_uri())
            taken.append(browser.execute_script(
                "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
            ))  # fmt: skip
        return sorted(taken)[2]
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
