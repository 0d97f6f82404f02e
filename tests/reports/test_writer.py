"""Writing reports: a failure omits only its own file, and foreign files are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.project import Project

RERUNS = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports):
        for report in reports:
            if report.failed:
                report.outcome = "rerun"
                item.ihook.pytest_runtest_logreport(report=report)
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""


def files(project: Project) -> dict[str, bytes]:
    names = ("report.html", "summary.md", "run.json")
    return {name: (project.path / "reports" / name).read_bytes() for name in names}


def run_json(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.path / "reports" / "run.json").read_bytes())
    return found


@pytest.mark.parametrize("name", ["report.html", "summary.md", "run.json"])
def test_a_folder_at_the_path_of_a_report_omits_it_with_a_warning(
    project: Project, name: str
) -> None:
    (project.path / "reports" / name).mkdir(parents=True)
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"lmstrix: *{name}*left out*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("name", ["report.html", "summary.md", "run.json"])
def test_foreign_files_are_not_overwritten(project: Project, name: str) -> None:
    path = project.path / "reports" / name
    path.parent.mkdir()
    path.write_text("mine")
    result = project.run("--lmstrix")
    result.stdout.fnmatch_lines([f"lmstrix: *{name} left out: *not written by pytest-lmstrix*"])
    assert path.read_text() == "mine"
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("args", [("--setup-plan",), ("-k", "nosuch"), ("--collect-only",), ()])
def test_a_run_without_model_tests_writes_no_reports(
    project: Project, args: tuple[str, ...]
) -> None:
    project.run("--lmstrix", "--all").assert_outcomes(passed=2)
    before = files(project)
    project.run("--lmstrix", *args)
    assert files(project) == before


def test_a_partial_run_reports_the_whole_fleet(project: Project) -> None:
    project.engine(good="", big="behaviours=(OutOfMemory(above=100),)")
    project.manifest("[{id: good, contexts: [512]}, {id: big, contexts: [512]}]")
    project.run("--lmstrix", "--all")
    project.run("--lmstrix", "--all", "-k", "good").assert_outcomes(passed=1)
    found = run_json(project)
    assert found["asked"] == ["-k good"]
    models = {model["id"]: model for model in found["models"]}  # type: ignore[attr-defined]
    assert models["big"]["verdict"] == models["big"]["earlier"]["verdict"] == "out_of_memory"
    assert "earlier" not in models["good"]
    text = files(project)["summary.md"].decode()
    assert "not tested now" in text
    assert "**The model works as far as tested**" in text
    assert "\n1 model, 1 test: 1 passed; machine" in text
    assert "1 model not tested in this run" in text
    assert ">big</th>" in files(project)["report.html"].decode()


@pytest.mark.parametrize(
    ("function", "part"),
    [("page.render.plot", "the plot"), ("page.render.fleet_of", "the map"),
     ("page.render.model_rows", "the models of report.html"),
     ("page.render.headline", "the headline of report.html"),
     ("page.render.change_lines", "the changes of report.html"),
     ("page.render.cause_groups", "the problems of report.html"),
     ("page.render.details_of", "the table of models of report.html"),
     ("html.render_page", "the overview of report.html"),
     ("writer.closing_table", "the table of models"), ("writer.compare", "changes"),
     ("writer.summary", "reports*summary.md"), ("writer.encode_run", "reports*run.json")],
)  # fmt: skip
def test_reports_fail_independently(
    project: Project, monkeypatch: pytest.MonkeyPatch, function: str, part: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(f"pytest_lmstrix.reports.{function}", fail)
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"lmstrix: {part}* left out: IndexError: list index out of range"])
    assert result.ret == pytest.ExitCode.OK


def test_an_unwritable_registry_is_an_error_before_the_first_load(
    project: Project,
) -> None:
    (project.path / "taken").write_text("a file")
    path = Path("taken") / "registry.jsonl"
    result = project.run("--lmstrix", f"--lmstrix-registry={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *cannot be *"])
    assert not (project.path / "engine.log").exists()


def test_the_last_rerun_of_a_test_counts(project: Project) -> None:
    own = "from pathlib import Path\n\ndef test_own(lmstrix_model):\n" \
          "    first = not Path('tried').exists()\n    Path('tried').touch()\n" \
          "    assert not first\n"  # fmt: skip
    project.pytester.makepyfile(test_own=own, reruns=RERUNS)
    project.pytester.syspathinsert()
    project.manifest("[{id: tiny, contexts: [512]}]")
    result = project.run("--lmstrix", "-p", "reruns", "-k", "test_own")
    assert result.ret == pytest.ExitCode.OK
    found = run_json(project)
    assert [case["outcome"] for case in found["cases"]] == ["passed"]  # type: ignore[attr-defined]
    assert "wrong_answer" not in files(project)["summary.md"].decode()
    result.stdout.fnmatch_lines(["*tiny*ok, passed on try 2*"])


def test_short_summary_lines_keep_the_verdict_at_80_columns(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    long = "a-model-with-quite-a-long-name-of-its-own-q4_k_m"
    project.engine(**{long: "behaviours=(OutOfMemory(above=100),)"})
    project.manifest(f"[{{id: {long}, contexts: [512]}}]")
    result = project.run("--lmstrix", "-ra")
    result.stdout.fnmatch_lines([f"FAILED(out_of_memory) models.yaml::test_full[[]{long}-512]"])
    project.manifest("[{id: short, contexts: [512]}]")
    project.engine(short="behaviours=(OutOfMemory(above=100),)")
    result = project.run("--lmstrix", "-ra")
    result.stdout.fnmatch_lines(["FAILED models.yaml::test_full[[]short-512] - out_of_memory: *"])
    assert result.parseoutcomes() == {"failed": 1}
