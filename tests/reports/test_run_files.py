"""summary.md, run.json and JUnit: golden files, the schema, and the files of a run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest

from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.run_json import RunReport, encode_run, json_schema
from pytest_lmstrix.reports.summary import MOST_MODELS, summary
from tests.end_to_end.project import Project
from tests.registry.results import a_result
from tests.reports.conftest import GOLDEN, HOSTILE, a_run

SCHEMA = Path(__file__).parents[2] / "docs" / "run.schema.json"
Golden = Callable[[str, str], None]


def test_summary(run: RunReport, golden: Golden) -> None:
    golden("summary.md", summary(run, {"report.html": "report.html"}))


def test_run_json(run: RunReport, golden: Golden) -> None:
    golden("run.json", encode_run(run).decode())


def test_run_json_round_trips(run: RunReport) -> None:
    assert msgspec.json.decode(encode_run(run), type=RunReport) == run


def test_the_documented_schema_is_that_of_run_json(run: RunReport, golden: Golden) -> None:
    golden(os.path.relpath(SCHEMA, GOLDEN), json.dumps(json_schema(), indent=2) + "\n")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(encode_run(run)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(encode_run(run)), "exit_status": "one"}, schema)


def test_a_long_summary_collapses_models_without_problems(tmp_path: Path) -> None:
    results = [a_result(8_191, model=f"m{n}", run="now") for n in range(MOST_MODELS)]
    bad = a_result(8_191, "crashed", model="bad", run="now")
    run = a_run(Registry(tmp_path / "registry.jsonl"), (*results, bad))
    open_part, _, folded = summary(run, {}).partition("<details>")
    assert "| bad |" in open_part
    assert "| m0 |" in folded
    assert "| bad |" not in folded
    assert "40 models without a problem" in folded


def test_model_output_is_escaped_in_the_summary(run: RunReport) -> None:
    text = summary(run, {})
    assert "<script" not in text
    assert "](https://evil" not in text
    assert "\x1b" not in text
    assert all(line.count(" | ") == 7 for line in text.splitlines() if "&lt;script" in line
               and line.startswith("|"))  # fmt: skip


BROKEN = """
import pytest

@pytest.fixture
def before():
    raise RuntimeError("no <b>before</b>")

@pytest.fixture
def after():
    yield
    raise RuntimeError("no after")

def test_set_up(before, lmstrix_model): pass
def test_torn_down(after, lmstrix_model): pass
def test_buggy(lmstrix_model): lmstrix_model.no_such_thing
"""


def test_a_summary_counts_each_test_once_and_lists_errors(project: Project) -> None:
    project.pytester.makepyfile(test_own=BROKEN)
    project.manifest("[{id: tiny, contexts: [512]}]")
    project.run("--lmstrix").assert_outcomes(passed=2, failed=1, errors=2)
    text = (project.path / "reports" / "summary.md").read_text(encoding="utf-8")
    assert "\n1 model, 4 tests: 2 passed, 2 error, 1 failed; machine" in text
    problems = text.partition("### What to do\n\n")[2].partition("\n\n###")[0]
    own = r"- **test\_own.py::test\_"
    assert problems.split("\n\n") == [
        "**error** (1 test)",
        rf"{own}set\_up\[tiny-512\]**: RuntimeError: no &lt;b&gt;before&lt;/b&gt;",
        "**error** (1 test)",
        rf"{own}torn\_down\[tiny-512\]**: RuntimeError: no after",
        "**failed test** (1 test)",
        rf"{own}buggy\[tiny-512\]**: AttributeError: 'LoadedModel' object has no attribute"
        r" 'no\_such\_thing'",
    ]


def test_summary_links_escape_paths(run: RunReport) -> None:
    links = {"registry": "../my (old) runs/100%#1.jsonl", "run": "https://hub.test/1#artifacts"}
    assert summary(run, links).splitlines()[-1] == (
        "[registry](../my%20%28old%29%20runs/100%25%231.jsonl)"
        " · [run](https://hub.test/1#artifacts)"
    )


WITH_WORKERS = {"serial": (), "xdist": ("-n", "2")}


def test_xdist_gives_the_same_reports(project: Project) -> None:
    found = {}
    for name, workers in WITH_WORKERS.items():
        shutil.rmtree(project.path / "reports", ignore_errors=True)
        project.manifest("[{id: tiny, contexts: [4096, 8192, 16384]}, {id: good, contexts: [512]}]")
        project.engine(tiny="", good="")
        project.run("--lmstrix").assert_outcomes(passed=4)
        project.engine(tiny="behaviours=(OutOfMemory(above=5000),)", good="")
        run = project.run_apart if workers else project.run
        options = ("--lmstrix", "--all", "--lmstrix-fail-on-regression", "--junitxml=junit.xml")
        result = run(*options, *workers)
        result.assert_outcomes(passed=2, failed=1, skipped=1)
        result.stdout.fnmatch_lines(["lmstrix: 2 regressions failed this run"])
        found[name] = result.ret, junit_properties(project.path), map_of(project.path)
    assert found["serial"] == found["xdist"]
    status, properties, (legend, cells) = found["serial"]
    assert status == pytest.ExitCode.TESTS_FAILED
    assert [len(of_test) > 2 for of_test in properties.values()].count(False) == 1
    assert legend == ["✓", "M", "-"]
    assert {sign for _, _, sign in cells} > {"✓", "M", "-"}, "and the sizes tried on the way down"


def junit_properties(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Properties of each test, without durations."""
    cases = ElementTree.parse(path / "junit.xml").iter("testcase")
    return {
        str(case.get("name")): [
            (name, "" if name.endswith("_seconds") else str(each.get("value")))
            for each in case.iter("property")
            if (name := str(each.get("name")))
        ]
        for case in cases
    }


def map_of(path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the signs of the legend, and family, target and sign of each cell."""
    text = (path / "reports" / "report.html").read_text(encoding="utf-8")
    legend = re.findall(r'<span><i class="lmstrix-\w+">(.)</i>', text)
    cell = r'<a class="lmstrix-(\w+)" href="#(case-\w+)"[^>]*>([^<]*)</a>'
    return legend, re.findall(cell, text.partition('<table id="lmstrix-map">')[2])


def test_junit_has_properties_and_reasons_under_stable_names(
    project: Project, golden: Golden
) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=512),)", lost="behaviours=(Corrupted(),)")
    project.manifest("[{id: tiny, contexts: [512, 1024, 2048]}, {id: lost, contexts: [512]}]")
    project.run("--lmstrix", "--all", "--junitxml=junit.xml")
    text = (project.path / "junit.xml").read_text(encoding="utf-8")
    text = re.sub(r' (time|timestamp|hostname)="[^"]*"', "", text)
    text = re.sub(r'(lmstrix_\w+_seconds" value)="[^"]*"', r'\1="1.0"', text)
    text = re.sub(r"\w*[/\\][^ ]*\.py:\d+", "FILE", text)
    tree = ElementTree.fromstring(text)
    ElementTree.indent(tree)
    golden("junit.xml", ElementTree.tostring(tree, encoding="unicode") + "\n")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_run_writes_its_reports(
    project: Project, workers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = project.path / "step.md"
    step.write_text("# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://hub.test")
    monkeypatch.setenv("GITHUB_REPOSITORY", "me/mine")
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    project.engine(tiny=f"behaviours=(Says(text={HOSTILE!r}),)", good="")
    project.manifest("[{id: tiny, contexts: [512]}, {id: good, contexts: [512, 1024]}]")
    run = project.run_apart if workers else project.run
    run("--lmstrix", "--all", *workers).assert_outcomes(passed=2, failed=1)
    reports = project.path / "reports"
    found = json.loads((reports / "run.json").read_bytes())
    jsonschema.validate(found, json_schema())
    assert found["counts"] == {"passed": 2, "failed": 1}
    assert found["exit_status"] == 1
    assert [model["verified_context"] for model in found["models"] if model["id"] == "good"] == [
        1024
    ]
    text = (reports / "summary.md").read_text(encoding="utf-8")
    assert "**1 of 2 works as far as tested, 1 not at all**" in text
    assert re.search(r"\n2 models, 3 tests: (2 passed, 1 failed|1 failed, 2 passed); machine", text)
    written = step.read_text(encoding="utf-8")
    assert written.startswith("# before\n## Local LLM models")
    assert "(https://hub.test/me/mine/actions/runs/42#artifacts)" in written
    assert "<script" not in written


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_run_with_nothing_new_adds_a_short_summary(
    project: Project, workers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    files = {path: path.read_bytes() for path in (project.path / "reports").glob("*.*")}
    step = project.path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    assert (project.run_apart if workers else project.run)("--lmstrix", *workers).ret == 0
    assert step.read_text(encoding="utf-8") == (
        "## Local LLM models\n\n"
        "**Nothing new to test**: 2 cases known already; `--lmstrix-all` runs them too.\n"
    )
    for args in (("--lmstrix", "--collect-only"), ("--lmstrix", "-k", "nosuch")):
        project.run(*args)
    assert step.read_text(encoding="utf-8").count("##") == 1
    assert {path: path.read_bytes() for path in (project.path / "reports").glob("*.*")} == files


def test_an_unwritable_summary_affects_no_other_report(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path))
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["lmstrix: step summary left out: *"])
    assert result.ret == 0
