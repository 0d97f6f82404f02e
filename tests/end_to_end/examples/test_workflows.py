"""The workflows of `examples/workflows/`: what they keep, and their commands on a fake engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import pytest_lmstrix.startup  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project

FOLDER = Path(__file__).parents[3] / "examples" / "workflows"
NAMES = ("github-models.yml", "github-pull-request.yml")
REGISTRY = "reports/registry.jsonl"

PROMPT = """
from itertools import count
from pathlib import Path
import pytest

GOOD, SAMPLES = int(Path("good.txt").read_text()), count()

@pytest.mark.lmstrix(samples=10, at_least=5)
def test_prompt(lmstrix_model):
    question = "Say hello" if next(SAMPLES) < GOOD else "Be quiet"
    assert lmstrix_model.chat(question, max_tokens=20).text == "Hello!"
"""


def steps_of(name: str) -> list[dict[str, Any]]:
    workflow = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert job["env"]["PYTEST_LMSTRIX_MACHINE"]
    steps: list[dict[str, Any]] = job["steps"]
    return steps


def commands_of(name: str) -> list[list[str]]:
    """Return the arguments of each command of pytest."""
    commands = [shlex.split(step["run"]) for step in steps_of(name) if "run" in step]
    assert {command[0] for command in commands} == {"pip", "pytest"}
    return [command[1:] for command in commands if command[0] == "pytest"]


def test_all_of_them_are_tested() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_keeps_the_registry_of_every_attempt_and_uploads_reports(name: str) -> None:
    steps = [step for step in steps_of(name) if "path" in step.get("with", {})]
    by_action = {step["uses"].partition("@")[0]: step for step in steps}
    restore, save = by_action["actions/cache/restore"], by_action["actions/cache/save"]
    assert restore["with"]["path"] == save["with"]["path"] == REGISTRY
    assert restore["with"]["key"] == save["with"]["key"]
    assert {"run_id", "run_attempt"} <= set(re.findall(r"github\.(\w+)", save["with"]["key"]))
    assert save["with"]["key"].startswith(restore["with"]["restore-keys"])
    upload = by_action["actions/upload-artifact"]
    assert upload["with"]["path"] == "reports/"
    assert save["if"] == upload["if"] == "always()"


def test_the_two_workflows_do_not_restore_each_others_registry() -> None:
    keys = [
        step["with"]["restore-keys"]
        for name in NAMES
        for step in steps_of(name)
        if "restore-keys" in step.get("with", {})
    ]
    assert not any(one.startswith(other) for one in keys for other in keys if one is not other)


def test_the_nightly_command_tests_the_models(project: Project) -> None:
    (command,) = commands_of(NAMES[0])
    project.run(*command).assert_outcomes(passed=2)
    assert (project.path / REGISTRY).exists()
    assert (project.path / "reports" / "junit.xml").exists()


def test_a_pull_request_that_makes_a_prompt_worse_is_rejected(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = project.path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    monkeypatch.chdir(project.path)
    project.manifest("[{id: tiny, contexts: [512]}]")
    prompts = project.path / "tests" / "prompts"
    prompts.mkdir(parents=True)
    accept, test = commands_of(NAMES[1])
    (prompts / "test_prompt.py").write_text(PROMPT)

    def run(good: int) -> tuple[int, str]:
        step.write_text("")
        (project.path / "good.txt").write_text(str(good))
        result = project.run(*test)
        passed = good >= 5
        result.assert_outcomes(passed=int(passed), failed=int(not passed))
        return result.ret, step.read_text(encoding="utf-8")

    status, summary = run(10)
    assert status == pytest.ExitCode.OK
    assert summary.startswith("## Local LLM models")
    for good, counts in ((6, "10 of 10 | 6 of 10"), (2, "16 of 20 | 2 of 10")):
        status, summary = run(good)  # with six, the test itself still passes
        assert status == pytest.ExitCode.TESTS_FAILED
        assert (
            f"| less reliable | tiny | test\\_prompt at 512 | passed samples | {counts} |"
            in summary
        )
    project.run(*accept)
    assert run(6)[0] == pytest.ExitCode.OK
    assert {path.name for path in (project.path / "reports").iterdir()} >= {
        "registry.jsonl", "report.html", "summary.md", "junit.xml",
    }  # fmt: skip
