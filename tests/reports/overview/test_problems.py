"""What to do: problems grouped by cause and advice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.overview.problems import causes
from pytest_lmstrix.reports.run_json import CaseReport, RunReport
from pytest_lmstrix.reports.terminal import what_to_do
from tests.registry.results import a_result
from tests.reports.conftest import a_run


def run_of(path: Path, *results: object) -> RunReport:
    return a_run(Registry(path / "registry.jsonl"), results)  # type: ignore[arg-type]


def test_twelve_guardrail_refusals_are_one_group(tmp_path: Path) -> None:
    refused = [a_result(60_000, "guardrail_refused", model=f"m{n}", run="now") for n in range(12)]
    crashed = a_result(8_191, "crashed", model="other", run="now")
    first, second = causes(run_of(tmp_path, crashed, *refused))
    assert first.title == "guardrail refused"
    assert "guardrails" in first.advice
    assert [each.name for each in first.affected] == [f"m{n}" for n in range(12)]
    assert {each.where for each in first.affected} == {"full at 60,000"}
    assert [each.name for each in second.affected] == ["other"]


def test_a_model_with_two_causes_is_in_both_at_its_smallest_size(tmp_path: Path) -> None:
    now = [
        a_result(60_000, "wrong_answer", model="m", run="now"),
        a_result(30_000, "wrong_answer", model="m", run="now"),
        a_result(80_000, "out_of_memory", model="m", run="now"),
        a_result(40_000, "out_of_memory", model="m", run="now", origin="search"),
    ]
    found = causes(run_of(tmp_path, *now))
    assert [(each.title, each.affected[0].where) for each in found] == [
        ("wrong answer", "full at 30,000"),
        ("out of memory", "full at 80,000"),
    ]


def test_hosts_whose_own_words_are_the_remedy_are_told_apart(tmp_path: Path) -> None:
    def found_on(host: str, model: str, words: str) -> object:
        return a_result(8_191, "unreachable", model=model, host=host, detail=words, run="now")

    token, key = "it wants an API token: set TOKEN", "the server wants a key: api_key_env"
    run = run_of(
        tmp_path,
        *[found_on("den", model, token) for model in ("a", "b")],
        found_on("attic", "c", token),
        found_on("10.0.0.5:8000", "v", key),
        found_on("127.0.0.1:1234", "here", "down"),
    )
    first, second, third = causes(run)
    assert [each.where for each in first.affected] == [
        "full at 8,191 on den", "full at 8,191 on den", "full at 8,191 on attic",
    ]  # fmt: skip
    assert third.affected[0].where == "full at 8,191"
    assert "--lmstrix-host` or `hosts:`" in third.advice
    lines = list(what_to_do(run, width=None, paint=lambda text, *_: str(text)))
    assert lines[1:5] == [
        f"3 models  unreachable: {token}",
        "          a (den), b (den), c (attic)",
        "1 model   unreachable",
        f"          v, full at 8,191 on 10.0.0.5:8000: {key}",
    ]
    assert second.affected[0].name == "v"


def test_what_broke_comes_before_larger_groups(tmp_path: Path) -> None:
    lost = a_result(8_191, "model_not_found", model="lost", run="now", fingerprint=None)
    never = [a_result(8_191, "crashed", model=f"m{n}", run="now") for n in range(3)]
    first, _ = causes(run_of(tmp_path, *never, lost))
    assert first.affected[0].since is not None
    assert first.broken == 1


def test_tests_without_a_verdict_are_grouped_by_what_they_raised(run: RunReport) -> None:
    raised = "def f():\n>   x\nE   NameError: name 'x' is not defined"
    cases = [CaseReport(node_id=f"t.py::t[{n}]", outcome="error", reason=raised) for n in range(5)]
    found = causes(msgspec.structs.replace(run, cases=(*run.cases, *cases)))
    assert found[2].title == "error"
    assert found[2].family is None
    assert [each.name for each in found[2].affected] == [f"t.py::t[{n}]" for n in range(5)]
    assert found[2].affected[0].detail == "NameError: name 'x' is not defined"
