"""Collection from models.yaml: test cases, ids, order, and activation of the plugin."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.checks import CHECKS
from tests.end_to_end.project import Project

ID = "models.yaml::test_full[tiny-{}]"


def test_one_item_per_model_and_context_length(project: Project) -> None:
    project.engine(tiny="", small="")
    project.manifest("[{id: tiny, contexts: [1024, 512]}, {id: small, contexts: [2048]}]")
    ids = project.ids("--lmstrix", "--all")
    assert sorted(ids) == sorted(
        [ID.format(512), ID.format(1024), "models.yaml::test_full[small-2048]"]
    )
    project.run("--lmstrix").assert_outcomes(passed=3)


def test_default_sizes_are_the_ladder_and_the_declared_maximum_less_one(project: Project) -> None:
    project.engine(tiny="max_context_length=65_536")
    project.manifest("[{id: tiny}]")
    assert project.ids("--lmstrix") == [ID.format(n) for n in (30_000, 40_000, 60_000, 65_535)]


def test_ctx_replaces_the_ladder(project: Project) -> None:
    assert project.ids("--lmstrix", "--lmstrix-ctx", "4096,300") == [
        ID.format(300),
        ID.format(4096),
    ]


def test_models_run_in_smart_order_by_default(project: Project) -> None:
    project.manifest(
        "[{id: a, size_bytes: 3, contexts: [9], context_limit: 9},"
        " {id: b, size_bytes: 1, contexts: [9], context_limit: 9},"
        " {id: c, size_bytes: 2, contexts: [9], context_limit: 8}]"
    )

    def order(*args: str) -> str:
        return "".join(line.partition("[")[2][0] for line in project.ids("--lmstrix", *args))

    assert order() == "cba"
    assert order("--lmstrix-sort=smartd") == "abc"
    assert order("--lmstrix-sort=id") == "abc"
    assert order("--lmstrix-sort=size") == "bca"
    assert order("--lmstrix-sort=sized") == "acb"


def test_deep_runs_after_the_other_checks_of_its_model(project: Project) -> None:
    project.engine(tiny="", small="")
    project.manifest("[{id: tiny, contexts: [512, 1024]}, {id: small, contexts: [256, 2048]}]")
    ids = project.ids("--lmstrix", "-m", "fast or full or deep", "--lmstrix-sort=id")
    assert [each.partition("::test_")[2] for each in ids] == [
        "fast[small-256]",
        "full[small-256]",
        "fast[small-2048]",
        "full[small-2048]",
        "deep[small-256]",
        "deep[small-2048]",
        "fast[tiny-512]",
        "full[tiny-512]",
        "fast[tiny-1024]",
        "full[tiny-1024]",
        "deep[tiny-512]",
        "deep[tiny-1024]",
    ]


def test_embedding_models_are_not_collected(project: Project) -> None:
    project.engine(tiny="", vectors='type="embedding"')
    project.manifest("[{id: tiny, contexts: [512]}, {id: vectors, contexts: [512]}]")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lmstrix: 1 model in models.yaml, 1 case, 1 embedding model"])
    assert project.engine_log == ["load tiny 512", "unload tiny"]


def test_dash_m_fast_runs_only_fast_cases_without_lmstrix(project: Project) -> None:
    project.pytester.makepyfile("def test_of_the_user(): assert False")
    result = project.run("-m", "fast", "-k", "tiny", "-v")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(["models.yaml::test_fast?tiny-512? PASSED*"])


def test_dash_m_speed_runs_only_speed_cases_without_lmstrix(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [512, 1024]}]")
    result = project.run("-m", "speed", "-k", "tiny", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["models.yaml::test_speed?tiny-512? PASSED*"])
    assert project.engine_log == ["load tiny 1024", "unload tiny"]


def test_speed_is_measured_again_in_each_run(project: Project) -> None:
    for _ in range(2):
        project.run("-m", "speed").assert_outcomes(passed=2)


def test_speed_runs_after_the_other_checks_of_its_model(project: Project) -> None:
    assert project.ids("-m", "fast or deep or limit or speed") == [
        "models.yaml::test_fast[tiny-512]",
        "models.yaml::test_fast[tiny-1024]",
        "models.yaml::test_deep[tiny-512]",
        "models.yaml::test_deep[tiny-1024]",
        "models.yaml::test_limit[tiny]",
        "models.yaml::test_speed[tiny-512]",
        "models.yaml::test_speed[tiny-1024]",
    ]


@pytest.mark.parametrize("expression", ["not fast", "slow", "not slow"])
def test_other_marker_expressions_do_not_activate_the_plugin(
    project: Project, expression: str
) -> None:
    project.pytester.makepyfile("def test_of_the_user(): pass")
    project.run("-m", expression).assert_outcomes(
        **({"deselected": 1} if expression == "slow" else {"passed": 1})
    )
    assert project.engine_log == []


def test_a_fast_marker_without_a_manifest_belongs_to_the_project(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.fast\ndef test_of_the_user(): pass")
    pytester.runpytest("-m", "fast").assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()


def test_the_plugin_is_inert_without_lmstrix(project: Project) -> None:
    project.pytester.makepyfile("def test_of_the_user(): pass")
    project.run().assert_outcomes(passed=1)
    assert not (project.path / "reports").exists()
    assert project.engine_log == []


def test_a_user_test_with_the_model_fixture_is_skipped_without_lmstrix(project: Project) -> None:
    project.pytester.makepyfile("def test_of_the_user(lmstrix_model): assert False")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*: models are tested with --lmstrix, *"])


def test_with_lmstrix_other_tests_are_deselected(project: Project) -> None:
    project.pytester.makepyfile(
        """
        def test_plain(): assert False
        def test_of_a_model(lmstrix_model): assert lmstrix_model.context_length in (512, 1024)
        """
    )
    project.run("--lmstrix").assert_outcomes(passed=4, deselected=1)


def test_node_ids_select_single_cases_of_any_check(project: Project) -> None:
    result = project.run("--lmstrix", "models.yaml::test_fast[tiny-512]")
    result.assert_outcomes(passed=1)
    assert [(r.check, r.context_length) for r in project.results] == [("fast", 512)]


@pytest.mark.parametrize("model", ["org/tiny", "tiny@q4", "a::b", "a[1]", "two words", "tiny🦙"])
def test_ids_with_odd_characters_run_and_rerun(project: Project, model: str) -> None:
    project.engine(**{model: ""})
    project.manifest(f"[{{id: '{model}', contexts: [512]}}]")
    (node_id,) = project.ids("--lmstrix")
    project.run("--lmstrix", node_id).assert_outcomes(passed=1)
    assert project.results[0].model == model


def test_only_paths_on_the_command_line_are_collected(project: Project) -> None:
    project.pytester.makepyfile(test_own="def test_of_a_model(lmstrix_model): pass")
    assert project.ids("--lmstrix", "test_own.py") == [
        "test_own.py::test_of_a_model[tiny-512]",
        "test_own.py::test_of_a_model[tiny-1024]",
    ]
    assert len(project.ids("--lmstrix", "models.yaml")) == 2


def test_testpaths_do_not_hide_the_manifest(project: Project) -> None:
    project.pytester.makeini("[pytest]\ntestpaths = tests")
    (project.path / "tests").mkdir()
    assert len(project.ids("--lmstrix")) == 2


def test_tags_are_markers_and_keywords(project: Project) -> None:
    project.engine(tiny="", small="")
    project.manifest("[{id: tiny, contexts: [1], tags: [nightly]}, {id: small, contexts: [1]}]")
    expected = ["models.yaml::test_full[tiny-1]"]
    assert project.ids("--lmstrix", "-k", "nightly") == expected
    assert project.ids("--lmstrix", "--strict-markers", "-m", "full and nightly") == expected


def test_the_manifest_option_selects_another_file(project: Project) -> None:
    (project.path / "sub").mkdir()
    (project.path / "models.yaml").rename(project.path / "sub" / "fleet.yaml")
    assert project.ids("--lmstrix", "--lmstrix-models", "sub/fleet.yaml") == [
        "sub/fleet.yaml::test_full[tiny-512]",
        "sub/fleet.yaml::test_full[tiny-1024]",
    ]
    project.pytester.makeini("[pytest]\nlmstrix_models = sub/fleet.yaml")
    project.run("--lmstrix").assert_outcomes(passed=2)


def test_the_mark_selects_models_and_sizes_of_user_tests(project: Project) -> None:
    project.engine(tiny="", llama="")
    project.manifest("[{id: tiny, contexts: [512]}, {id: llama, contexts: [512]}]")
    project.pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.lmstrix(match="*llama*", contexts=[4096, 2048])
        def test_one(lmstrix_model): assert lmstrix_model.model.id == "llama"
        @pytest.mark.lmstrix(match="nothing*")
        def test_none(lmstrix_model): assert False
        """
    )
    result = project.run("--lmstrix", "test_own.py", "-v", "-rs")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*test_one?llama-2048? PASSED*", "*test_one?llama-4096? PASSED*"])
    result.stdout.fnmatch_lines(["SKIPPED*no model of the manifest is selected*"])


def test_dash_m_without_lmstrix_keeps_the_projects_tests(project: Project) -> None:
    project.pytester.makepyfile("import pytest\n@pytest.mark.fast\ndef test_mine(): assert 0")
    project.run("-m", "fast").assert_outcomes(passed=2, failed=1)
    project.run("--lmstrix", "-m", "fast").assert_outcomes(deselected=3)


@pytest.mark.parametrize("scope", ["function", "class", "module", "session"])
@pytest.mark.parametrize("args", [(), ("--lmstrix", "-k", "test_own")], ids=["inactive", "active"])
def test_fixtures_of_any_scope_can_use_the_model(
    project: Project, scope: str, args: tuple[str, ...]
) -> None:
    project.pytester.makepyfile(
        f"""
        import pytest
        @pytest.fixture(scope="{scope}")
        def reply(lmstrix_model): return lmstrix_model.chat("2+3=", max_tokens=5)
        class TestIt:
            def test_own(self, reply): assert "5" in reply.text
        """
    )
    project.run(*args).assert_outcomes(**({"passed": 2} if args else {"skipped": 1}))


MARKS = {
    "'tiny'": "by name; got 'tiny'",
    "sizes=[3]": "not sizes=...",
    "match=3": "match must be a pattern of model ids, got 3",
    "contexts=512": "contexts must be a list of context lengths, got 512",
    "contexts=[0]": "whole numbers from 1 to 2,147,483,647, got 0",
    "contexts=[True]": "got True",
    "contexts=['x']": "got 'x'",
}


@pytest.mark.parametrize("arguments", MARKS)
def test_an_invalid_mark_is_a_one_line_error(project: Project, arguments: str) -> None:
    project.pytester.makepyfile(
        f"import pytest\n@pytest.mark.lmstrix({arguments})\ndef test_own(lmstrix_model): pass"
    )
    result = project.run("--lmstrix")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"@pytest.mark.lmstrix: *{MARKS[arguments].replace('[', '?')}*"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize("tag", ["skip", "fast", "a b", "a:b", "_x", "usefixtures", "not"])
def test_reserved_tags_are_refused(project: Project, tag: str) -> None:
    project.manifest(f"[{{id: tiny, tags: ['{tag}']}}]")
    result = project.run("--lmstrix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:2: model 'tiny': tags must be *"])


@pytest.mark.parametrize("expression", ["not slow", "nightly", "not deep"])
def test_a_project_marker_does_not_add_checks(project: Project, expression: str) -> None:
    project.pytester.makeini("[pytest]\nmarkers = slow")
    project.manifest("[{id: tiny, contexts: [512], tags: [nightly]}]")
    ids = project.ids("--lmstrix", "-m", expression)
    assert ids == ["models.yaml::test_full[tiny-512]"]


def test_a_manifest_is_found_through_a_symlink(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [512]}]")
    models = project.path / "models.yaml"
    elsewhere = models.rename(project.path / "real.yml")
    try:
        models.symlink_to(elsewhere)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    ids = ["models.yaml::test_full[tiny-512]"]
    assert project.ids("--lmstrix") == ids
    assert project.ids("--lmstrix", "models.yaml") == ids
    assert project.ids("--lmstrix", "models.yaml::test_full") == ids


def test_only_the_checks_that_a_run_wants_are_parametrized(project: Project) -> None:
    # Items that are made only to be dropped cost as much as the others.
    project.pytester.makepyfile(
        conftest="""
        from tests.standin.fake_engine import FakeEngine

        def pytest_lmstrix_engines(config):
            return [FakeEngine(())]

        def pytest_generate_tests(metafunc):
            print(f"parametrized {metafunc.definition.name}")

        def pytest_collection_modifyitems(items):
            print("marks", len({id(mark) for item in items for mark in item.own_markers}))
        """
    )
    models = ",".join(f"{{id: m{n}, contexts: [1, 2, 3], tags: [nightly, small]}}" for n in "abc")
    project.manifest(f"[{models}]")

    def printed(*args: str) -> list[str]:
        lines = project.run(*args, "--collect-only", "-q", "-s").outlines
        return [line for line in lines if line.startswith(("parametrized", "marks"))]

    # The mark of the check and those of two tags, whatever the number of cases.
    assert printed("--lmstrix") == ["parametrized test_full", "marks 3"]
    assert printed("models.yaml::test_fast[ma-1]") == ["parametrized test_fast", "marks 3"]
    assert len(printed("models.yaml::test_fast", "models.yaml")) == len(CHECKS) + 1
