"""Hostile and unusual input in whole runs: safe output, clear errors, no files elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.file_server import file_server
from tests.standin.lmstudio import LmStudioServer, Says, StandInModel
from tests.standin.lmstudio.models import hostile

ODD_IDS = [
    "publisher/model@q4_k_m",
    "a::b",
    "list[x]",
    "with space",
    "smile-😀",
    "../../escape",
    "quote'\"",
    "<b>bold</b>",
    "-m",
]
CONTROLS = set(map(chr, [*range(9), 11, 12, *range(14, 32), 127, 0x9B, 0x202E, 0x2066]))


def run(project: Project, models: list[StandInModel]) -> pytest.RunResult:
    entries = [{"id": each.key, "contexts": [512], "context_limit": 4096} for each in models]
    manifest = project.path / "models.yaml"
    manifest.write_text(json.dumps({"models": entries}, ensure_ascii=False), encoding="utf-8")
    with LmStudioServer(models) as server:
        result = project.run("--lmstrix", "--all", "--lmstrix-host", server.host, "--color=no")
        assert server.loaded() == ()
    assert server.violations == []
    return result


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith((".pytest_cache", "__pycache__"))}


def test_any_model_output_is_handled(project: Project) -> None:
    said = hostile.TEXTS | {"huge": hostile.HUGE_LINE}
    models = [StandInModel(key=key, behaviours=(Says(text=text),)) for key, text in said.items()]
    before = files(project.path)
    result = run(project, [*models, StandInModel(key="healthy", size_bytes=10**13)])
    expected = dict.fromkeys(said, Verdict.WRONG_ANSWER)
    found = {each.model: each.verdict for each in project.results}
    assert found.pop("healthy") is Verdict.OK
    assert found["huge"] is Verdict.ENGINE_ERROR
    # A text that happens to contain an answer passes.
    assert {key for key in expected if found[key] is Verdict.OK} <= {"html"}
    assert found.keys() == expected.keys()
    reports = project.path / "reports"
    for text in (
        result.stdout.str(),
        *(path.read_text(encoding="utf-8") for path in reports.iterdir() if path.is_file()),
    ):
        assert not set(text) & CONTROLS
        assert len(text) < 2_000_000
    assert "<script>alert" not in (reports / "report.html").read_text(encoding="utf-8")
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert files(project.path) - before <= {"reports"}


def test_models_with_unusual_names_are_handled(project: Project) -> None:
    before = files(project.path)
    models = [StandInModel(key=key, path=f"p/m{n}.gguf") for n, key in enumerate(ODD_IDS)]
    result = run(project, models)
    result.assert_outcomes(passed=len(ODD_IDS))
    assert {each.model for each in project.results} == set(ODD_IDS)
    assert files(project.path) - before <= {"reports"}
    assert "<b>bold</b>" not in (project.path / "reports" / "report.html").read_text("utf-8")


def test_torn_binary_and_foreign_registry_lines_are_handled(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    registry = project.path / "reports" / "registry.jsonl"
    good = registry.read_bytes()
    rubbish = bytes(range(256)).replace(b"\n", b"") + b'\n{"schema": 1}\n[]\n\xff\xfe\n"text"\n'
    registry.write_bytes(rubbish + good + good[:100])
    result = project.run("--lmstrix", "--all")
    result.assert_outcomes(passed=2)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert registry.read_bytes().startswith(rubbish + good)
    assert registry.read_bytes().count(b'"verdict":"ok"') >= 4


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["", "-n2"])
def test_a_run_reports_damaged_lines_and_sets_them_aside(
    project: Project, args: tuple[str, ...]
) -> None:
    project.manifest("[{id: tiny, contexts: [512, 1024]}]")
    project.run("--lmstrix", "--lmstrix-ctx=512").assert_outcomes(passed=1)
    registry = project.path / "reports" / "registry.jsonl"
    registry.write_bytes(b'{broken\n\x00\xff\n{"schema": 99}\n' + registry.read_bytes() + b'{"torn')
    result = project.run_apart("--lmstrix", *args)
    result.assert_outcomes(passed=1)  # the other one is known
    (copied,) = registry.parent.glob("registry.corrupt-*")
    assert copied.read_bytes() == b"{broken\n\x00\xff\n"
    notices = [line for line in result.outlines if "left out" in line and "1 case" not in line]
    in_reports = f"lmstrix: reports{os.sep}registry.jsonl:"
    assert notices == 2 * [
        f"{in_reports} 2 damaged lines left out, copied to {copied.name}; see --lmstrix-health",
        f"{in_reports} 1 line of a newer pytest-lmstrix left out",
    ]


@pytest.mark.parametrize("args", [("-vv",), ("-n", "1")], ids=["", "-n1"])
@pytest.mark.parametrize("end", ["skip(said)", "xfail(said)", "fail(said)"])
def test_a_check_that_exits_with_model_output_is_sanitized(
    project: Project, end: str, args: tuple[str, ...]
) -> None:
    project.engine(tiny=f"behaviours=(Says(text={hostile.SURROGATES + hostile.ANSI!r}),)")
    source = f"""
        import pytest
        @pytest.mark.lmstrix(match="tiny", contexts=[512])
        def test_own(lmstrix_model, record_property):
            said = lmstrix_model.complete("Say it.", max_tokens=99).text
            record_property("said", said)
            pytest.{end}
    """
    project.pytester.makepyfile(test_own=source)
    result = project.run_apart("--lmstrix", "--color=no", "-ra", *args, "test_own.py")
    assert sum(result.parseoutcomes().values()) == 1
    assert "INTERNALERROR" not in result.stdout.str()
    assert not set(result.stdout.str()) & CONTROLS
    result.stdout.fnmatch_lines(["*\ufffd high, \ufffd low*red*"])


COMMANDS = "::add-mask::x\n  ::stop-commands::x\n##[add-mask]x"


@pytest.mark.parametrize("end", ["skip(said)", "xfail(said)", "fail(said)", "fail(print(said))"])
def test_no_workflow_command_is_printed(
    project: Project, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    name = "::error::##[add-mask]m"
    project.engine(**{name: f"behaviours=(Says(text={COMMANDS!r}),)"})
    project.manifest(f"[{{id: '{name}', contexts: [512]}}]")
    source = f"""
        import pytest
        @pytest.mark.lmstrix(contexts=[512])
        def test_own(lmstrix_model):
            said = lmstrix_model.complete("Say it.", max_tokens=99).text
            print(said)
            pytest.{end}
    """
    project.pytester.makepyfile(test_own=source)
    result = project.run_apart("--lmstrix", "--color=no", "-ra", "-v", "test_own.py")
    assert sum(result.parseoutcomes().values()) == 1
    assert "add-mask" in result.stdout.str()
    for line in result.outlines:
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


@pytest.mark.parametrize("status", [200, 404, 500])
def test_no_secret_of_a_source_is_written_or_printed(project: Project, status: int) -> None:
    with file_server(b"GGUF") as elsewhere, file_server(b"") as server:
        elsewhere.status = status
        server.redirect = f"{elsewhere.base}/f.gguf?signature=SECRET"
        host = server.base.removeprefix("http://")
        source = f"http://user:SECRET@{host}/f.gguf?token=SECRET#SECRET"
        project.engine(tiny="")
        project.manifest(f"[{{id: tiny, contexts: [512], source: '{source}'}}]")
        project.pytester.makepyfile(
            test_own="""
            from pathlib import Path
            from pytest_lmstrix.weights.fetch import fetch
            def test_own(lmstrix_model):
                fetch(Path('source.txt').read_text(), base_dir=Path(), cache_dir=Path("cache"))
            """
        )
        (project.path / "source.txt").write_text(source, encoding="utf-8")
        result = project.run_apart(
            "--lmstrix", "-ra", "-v", "--log-level=INFO", "--junitxml=reports/junit.xml"
        )
        assert elsewhere.requests
    assert "SECRET" not in result.stdout.str() + result.stderr.str()
    reports = [path for path in (project.path / "reports").rglob("*") if path.is_file()]
    assert {"registry.jsonl", "run.json", "junit.xml"} <= {path.name for path in reports}
    for path in reports:
        assert b"SECRET" not in path.read_bytes(), path
