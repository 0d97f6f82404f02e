"""The examples of the README and the docs, run as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin.lmstudio import StandInModel
from tests.standin.openai import OpenAiServer

ROOT = Path(__file__).parent.parent.parent


def examples(name: str, language: str = "python") -> list[str]:
    """The code blocks of a document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", ["README.md", "docs/own-checks.md"])
def test_the_documented_custom_check_works(project: Project, document: str) -> None:
    project.engine(**{"some-llama": """behaviours=(Says(text='{"city": "Paris"}'),)"""})
    project.manifest("[{id: some-llama, contexts: [512]}]")
    (example,) = (each for each in examples(document) if "def test_json" in each)
    project.pytester.makepyfile(test_own=example)
    project.run("--lmstrix", "-k", "test_json").assert_outcomes(passed=1)
    (result,) = project.results
    assert (result.check, result.context_length) == ("test_json", 8192)
    assert result.verdict is Verdict.OK


def test_the_documented_arguments_work(project: Project) -> None:
    apart = ("test_json", "lmstrix_embedding")
    given = [
        each for each in examples("docs/own-checks.md") if not any(word in each for word in apart)
    ]
    project.pytester.makepyfile(test_own="\n".join(given))
    with OpenAiServer(StandInModel(key="tiny"), 1024) as server:
        entry = f"{{id: tiny, engine: openai, url: {server.url!r}, contexts: [1024]}}"
        project.pytester.makefile(".yaml", models=f"models: [{entry}]\n")
        project.run("--lmstrix", "-k", "test_own").assert_outcomes(passed=5)
    found = {each.check: (each.verdict, each.passed_samples) for each in project.results}
    assert found == {
        "test_invoice": (Verdict.OK, None),
        "test_calls_the_tool_in_a_half_filled_context": (Verdict.OK, None),
        "test_history": (Verdict.OK, None),
        "test_agent": (Verdict.OK, None),
        "test_greets": (Verdict.OK, 10),
    }


def test_the_documented_checks_of_embedding_models_work(project: Project) -> None:
    (example,) = (each for each in examples("docs/own-checks.md") if "lmstrix_embedding" in each)
    project.pytester.makepyfile(test_own=example)
    project.engine(vectors='type="embedding", max_context_length=512')
    project.manifest("[{id: vectors}]")
    project.run("--lmstrix").assert_outcomes(passed=2)
    assert {(each.check, each.context_length) for each in project.results} == {
        ("test_search", 512),
        ("test_no_text_is_cut", 256),
    }


@pytest.fixture
def parrot(project: Project) -> Project:
    """A project of the files on the page about engines, each named by its first line."""
    blocks = examples("docs/engines.md") + examples("docs/engines.md", "yaml")
    for name, text in (re.match(r"# (\S+)\n(.*)", each, re.DOTALL).groups() for each in blocks):  # type: ignore[union-attr]
        project.path.joinpath(name).write_text(text, encoding="utf-8")
    return project


def test_the_documented_engine_works(parrot: Project) -> None:
    parrot.run("-m", "fast", "--lmstrix").assert_outcomes(passed=2)
    assert {(r.engine, r.host, r.model, r.verdict) for r in parrot.results} == {
        ("parrot", "127.0.0.1:9000", "polly", Verdict.OK)
    }


def test_the_documented_engine_passes_the_contract(parrot: Project) -> None:
    result = parrot.run("test_parrot.py", "-rs")
    result.assert_outcomes(passed=16, skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED*the engine has no sweep()", "SKIPPED*has no others()"])


def test_the_documented_engine_takes_hosts(parrot: Project) -> None:
    hosts = ("--lmstrix-host", "parrot://a:1", "--lmstrix-host", "parrot+http://b:2")
    parrot.run("--lmstrix", "-m", "fast", *hosts).assert_outcomes(passed=2)
    assert {r.host for r in parrot.results} == {"a:1"}
    scan = parrot.run("--lmstrix-scan", *hosts)
    scan.stdout.fnmatch_lines(["parrot a:1 *1 model", "parrot b:2 *1 model"])


def test_the_verdicts_of_engines_are_documented_by_name() -> None:
    text = (ROOT / "docs/engines.md").read_text(encoding="utf-8")
    table = text.partition("## Failures")[2].partition("##")[0]
    names = re.findall(r"\| `(\w+)`", table)
    assert len(names) == 7
    assert set(names) <= set(Verdict)


def test_the_readme_manifest_is_valid(project: Project) -> None:
    project.pytester.makefile(".yaml", models=examples("README.md", "yaml")[0])
    ids = project.ids("--lmstrix")
    assert "models.yaml::test_full[smollm2-135m-instruct-2048]" in ids


def test_the_first_two_readme_commands_work() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    commands = [line for line in screen if line.startswith("pip install")]
    assert [line.partition(" && ")[2] for line in commands] == [
        "pytest --lmstrix --all",
        "pytest -n auto",
    ]
    assert "grep -m1 -F '.[test]' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
