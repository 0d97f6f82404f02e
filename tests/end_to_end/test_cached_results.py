"""Cached results are not run again, changed cases are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.project import Project

ALL = ("-m", "fast or full or deep or limit")
LEFT_OUT = "lmstrix: {} left out: cached results *--lmstrix-all runs them too"


def rewrite(project: Project, change: Callable[[dict[str, Any]], object]) -> None:
    """Change every line of the registry."""
    path = project.path / "reports" / "registry.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def loads(project: Project) -> int:
    return sum(event.startswith("load ") for event in project.engine_log)


def test_passed_cases_are_deselected_and_counted_in_one_line(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [2048, 4096], context_limit: 8192}]")
    result = project.run("--lmstrix", *ALL)
    result.assert_outcomes(passed=7)
    result.stdout.no_fnmatch_line(LEFT_OUT.format("*"))
    before = loads(project)
    result = project.run("--lmstrix", *ALL)
    result.assert_outcomes(deselected=7)
    result.stdout.fnmatch_lines([LEFT_OUT.format("7 cases")])
    assert loads(project) == before


@pytest.mark.parametrize(
    "args",
    [
        ("--all",),
        ("--lmstrix-all",),
        ("-k", "tiny"),
        ("models.yaml::test_full[tiny-512]", "models.yaml::test_full[tiny-1024]"),
    ],
    ids=["all", "long option", "by name", "by node id"],
)
def test_cases_selected_by_node_id_always_run(project: Project, args: tuple[str, ...]) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    project.run("--lmstrix", *args).assert_outcomes(passed=2)


def test_failed_cases_run_again(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=600),)", lost="behaviours=(Corrupted(),)")
    project.manifest("[{id: tiny, contexts: [512, 1024]}, {id: lost, contexts: [512]}]")
    project.run("--lmstrix").assert_outcomes(passed=1, failed=1, xfailed=1)
    result = project.run("--lmstrix")
    result.assert_outcomes(failed=1, xfailed=1, deselected=1)
    result.stdout.fnmatch_lines([LEFT_OUT.format("1 case")])


@pytest.mark.parametrize("verdict", ["crashed", "timeout"])
def test_cases_with_transient_failures_run_again(project: Project, verdict: str) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    rewrite(project, lambda line: line.update(verdict=verdict, outcome="failed"))
    project.run("--lmstrix").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "sha256:other"),
        ("engine_version", "0.1"),
        ("check_version", 999),
        ("machine", "another"),
        ("settings", '{"kv_cache_type":"q8_0"}'),
        ("engine", "another"),
        ("check", "fast"),
    ],
)
def test_changed_cases_run_again(project: Project, field: str, value: object) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    rewrite(project, lambda line: line.update({field: value}))
    project.run("--lmstrix").assert_outcomes(passed=2)


def test_inconclusive_cases_do_not_run_again(project: Project) -> None:
    project.engine(tiny="behaviours=(Says(text='No idea.'),)")
    project.manifest("[{id: tiny, contexts: [1024]}]")
    project.run("--lmstrix", "-m", "deep").assert_outcomes(skipped=1)
    result = project.run("--lmstrix", "-m", "deep")
    result.assert_outcomes(deselected=1)
    result.stdout.fnmatch_lines([LEFT_OUT.format("1 case")])


def test_a_limit_below_the_declared_maximum_is_cached(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=10_000),)")
    project.manifest("[{id: tiny, contexts: [512], context_limit: 32768}]")
    project.run("-m", "limit").assert_outcomes(passed=1)
    before = project.engine_log
    result = project.run("-m", "limit")
    result.assert_outcomes(deselected=1)
    result.stdout.fnmatch_lines([LEFT_OUT.format("1 case")])
    project.run("-m", "limit", "--all").assert_outcomes(passed=1)
    (again,) = [line for line in project.engine_log[len(before) :] if line.startswith("load")]
    assert again == f"load tiny {project.results[0].context_length}"


def test_a_limit_that_a_newer_result_contradicts_is_searched_again(project: Project) -> None:
    project.run("-m", "limit").assert_outcomes(passed=1)
    project.engine(tiny="behaviours=(OutOfMemory(above=10_000),)")
    project.run("--lmstrix", "--lmstrix-ctx", "131072").assert_outcomes(failed=1)
    project.run("-m", "limit").assert_outcomes(passed=1)


def test_a_limit_that_a_newer_result_widens_is_searched_again(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=10_000),)")
    project.run("-m", "limit").assert_outcomes(passed=1)
    bad = min(r.context_length for r in project.results if r.outcome == "failed")
    project.engine(tiny="")
    project.run("--lmstrix", "--lmstrix-ctx", str(bad)).assert_outcomes(passed=1)
    project.run("-m", "limit").assert_outcomes(passed=1)


def test_sizes_of_another_check_version_do_not_bound_the_search(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=10_000),)")
    project.run("-m", "limit").assert_outcomes(passed=1)
    searched = loads(project)
    rewrite(project, lambda line: line.update(check_version=999))
    project.run("-m", "limit").assert_outcomes(passed=1)
    assert loads(project) == 2 * searched


def test_user_tests_run_again_when_their_source_changes(project: Project) -> None:
    source = "def test_own(lmstrix_model): assert lmstrix_model.context_length > {}"
    project.pytester.makepyfile(test_own=source.format(0))
    project.run("--lmstrix", "test_own.py").assert_outcomes(passed=2)
    project.run("--lmstrix", "test_own.py").assert_outcomes(deselected=2)
    project.pytester.makepyfile(test_own=source.format(511))
    project.run("--lmstrix", "test_own.py").assert_outcomes(passed=2)


def test_xdist_prints_the_same_line(project: Project) -> None:
    project.run("--lmstrix").assert_outcomes(passed=2)
    result = project.run_apart("--lmstrix", "-n", "2", "--lmstrix-ctx", "512,1024,2048")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([LEFT_OUT.format("2 cases")])
    result = project.run_apart("--lmstrix", "-n", "2")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([LEFT_OUT.format("2 cases")])
