"""What a user sees of `capability`: one test of each model, declared and proven side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Says, StandInModel
from tests.standin.lmstudio.models.behaviours import SeesStripes, UsesTools
from tests.standin.ollama import OllamaServer

ABLE = StandInModel(
    key="able", trained_for_tool_use=True, vision=True, behaviours=(UsesTools(), SeesStripes())
)
BLIND = StandInModel(key="blind", trained_for_tool_use=True, vision=True, behaviours=(UsesTools(),))
WEAK = StandInModel(key="weak", vision=True, behaviours=(Says(text="No idea."),))
MODELS = """
defaults: {engine: ollama}
models:
  - {id: able, contexts: [2048, 4096, 8192], capabilities: [tools, vision]}
  - {id: blind, contexts: [2048], capabilities: [tools, vision, audio]}
  - {id: weak, contexts: [8192, 4096]}
"""


@pytest.fixture
def server(project: Project) -> Iterator[OllamaServer]:
    project.pytester.makefile(".yaml", models=MODELS)
    with OllamaServer([ABLE, BLIND, WEAK]) as server:
        yield server
        assert server.loaded == {}


def run(project: Project, server: OllamaServer, *args: str) -> pytest.RunResult:
    return project.run("--lmstrix-host", server.host, *args)


def read(project: Project, name: str) -> str:
    return Path(project.path, "reports", name).read_text(encoding="utf-8")


def test_each_model_has_one_case_and_a_claim_that_does_not_hold_fails(
    project: Project, server: OllamaServer
) -> None:
    result = run(project, server, "-m", "capability", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    sizes = {each.model: each.context_length for each in project.results}
    assert sizes == {"able": 4096, "blind": 2048, "weak": 4096}
    assert {each.check for each in project.results} == {"capability"}
    result.stdout.fnmatch_lines_random(
        [
            "*wrong_answer: vision: declared, but it does not hold: description of a picture:*",
            "*inconclusive: vision: not judged: it is too weak, for it fails the easy*",
        ]
    )
    run(project, server, "-m", "capability").assert_outcomes(failed=1, deselected=2)
    project.pytester.makefile(".yaml", models=MODELS.replace("[tools, vision]", "[thinking]"))
    again = run(project, server, "-m", "capability", "-k", "able")
    again.assert_outcomes(failed=1)  # of a model that this is declared of since
    again.stdout.fnmatch_lines(["*Ollama reports that this model cannot think*"])


def test_declared_and_proven_are_side_by_side(
    project: Project, server: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # all columns have room
    run(project, server, "-m", "capability or full", "--lmstrix-ctx", "2048")
    listed = project.run("--lmstrix-list").outlines
    rows = {line.split()[0]: line for line in listed}
    assert rows["model"].endswith("  capabilities")
    proofs = "tools proven, vision proven, schema proven, parallel_tools proven"
    assert rows["able"].endswith(f"  {proofs}")
    failed = "tools proven, vision failed, audio declared, schema proven, parallel_tools proven"
    assert rows["blind"].endswith(f"  {failed}")
    # Claims say nothing about the sizes.
    assert "  2,048          -  completed  works" in " ".join(rows["blind"].split(" "))
    found = {each["id"]: each for each in json.loads(read(project, "run.json"))["models"]}
    assert found["blind"]["capabilities"] == ["tools", "vision", "audio"]
    assert found["blind"]["capability_proofs"]["vision"] == "failed"
    assert found["blind"]["verified_context"] == 2048
    as_json = project.run("--lmstrix-list", "--lmstrix-format=json").outlines
    (weak,) = (each for each in json.loads("\n".join(as_json))["models"] if each["id"] == "weak")
    assert weak["capability_proofs"] == {"schema": "proven", "vision": "inconclusive"}
    summary = read(project, "summary.md")
    assert "| model | declared | proven | failed | inconclusive |" in summary
    row = "| blind | tools, vision, audio | schema, tools, parallel\\_tools | vision | - |"
    assert row in summary
    page = read(project, "report.html")
    assert f"<dt>capabilities</dt><dd>{failed}</dd>" in page
    assert page.count("<small>1 claim untrue</small>") == 1


def test_it_does_not_run_unasked(project: Project) -> None:
    assert project.ids("-m", "capability") == ["models.yaml::test_capability[tiny]"]
    assert not any("capability" in node for node in project.ids("--lmstrix"))


def test_an_embedding_model_has_a_case_of_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # all columns have room
    vectors = StandInModel(key="vectors", type="embedding")
    entry = "{id: vectors, engine: ollama, type: embedding}"
    project.pytester.makefile(".yaml", models=f"models: [{entry}]")
    with OllamaServer([vectors, ABLE]) as server:
        assert run(project, server, "--lmstrix").ret == pytest.ExitCode.NO_TESTS_COLLECTED
        run(project, server, "-m", "capability").assert_outcomes(passed=1)
    assert [(each.model, each.capabilities) for each in project.results] == [
        ("vectors", {"embedding": "proven"})
    ]
    listed = project.run("--lmstrix-list").outlines
    assert any(line.startswith("vectors") and "embedding proven" in line for line in listed)
