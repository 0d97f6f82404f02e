"""The plugin installed in projects that do not use it, or use it beside other tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.end_to_end.project import Project
from tests.sampling import few_of

OWN_ALL = """
def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", dest="theirs")

def test_theirs(pytestconfig):
    assert pytestconfig.option.theirs is True
    assert pytestconfig.option.lmstrix_all is False
"""

OWN_TESTS = """
import pytest

@pytest.mark.fast
def test_quick(): pass

def test_slow(): pass
"""

FOREIGN = {
    "dbt": "version: 2\nmodels:\n  - name: orders\n    columns:\n      - {name: id}\n",
    "Rasa": "language: en\nmodels:\n  nlu: {id: x}\npipeline:\n  - name: WhitespaceTokenizer\n",
    "a list": "- id: tiny\n- id: other\n",
    "a list of names": "models: [tiny, other]\n",
    "a mapping": "models: {id: tiny}\n",
    "an id that is no text": "models: [{id: {a: b}}]\n",
    "deeper": "site:\n  models:\n    - id: tiny\n",
    "empty": "",
    "no models": "models: []\n",
    "a scalar": "just words\n",
    "a template": "models:\n{% for name in names %}\n  - id: {{ name }}\n{% endfor %}\n",
    "a template behind a model": "models:\n  - id: tiny\n{% if big %}\n  - id: big\n{% endif %}\n",
    "a template of values": "models:\n  - id: {{ cookiecutter.model }}\n",
    "no YAML": "models: [{]\n",
}


@pytest.fixture
def other(project: Project) -> Project:
    """A project with two tests, one marked fast, and no manifest."""
    (project.path / "models.yaml").unlink()
    project.pytester.makepyfile(test_theirs=OWN_TESTS)
    return project


@pytest.fixture
def mixed(project: Project) -> Project:
    """A project with two tests, one marked fast, and a model."""
    project.pytester.makepyfile(test_theirs=OWN_TESTS)
    project.manifest("[{id: tiny, contexts: [512]}]")
    return project


def notes(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("lmstrix")]


def assert_inert(project: Project, result: pytest.RunResult) -> None:
    """Check that one of the other tests has passed, and that the plugin has done nothing."""
    result.assert_outcomes(passed=1, deselected=1)
    assert result.ret == pytest.ExitCode.OK
    assert project.engine_log == []
    assert not (project.path / "reports").exists()


@pytest.mark.parametrize("args", [("--all",), ("--help",)])
def test_an_all_option_of_a_conftest_is_kept(project: Project, args: tuple[str, ...]) -> None:
    project.pytester.makeconftest(OWN_ALL)
    result = project.run_apart("conftest.py", *args)
    assert result.ret == pytest.ExitCode.OK
    assert "conflicting option" not in result.stderr.str()


def test_an_all_option_of_a_conftest_that_is_loaded_later_does_not_conflict(other: Project) -> None:
    folder = other.pytester.mkdir("part")
    (folder / "conftest.py").write_text(OWN_ALL)
    (folder / "test_part.py").write_text("def test_part(): pass\n")
    result = other.run_apart("-k", "part or quick")
    result.assert_outcomes(passed=2, deselected=1)


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_models_yaml_of_another_tool_is_ignored(other: Project, kind: str) -> None:
    (other.path / "models.yaml").write_text(FOREIGN[kind])
    result = other.run("-m", "fast")
    assert_inert(other, result)
    assert notes(result) == ["lmstrix: models.yaml is not a list of models, so none is tested"]


def test_a_binary_models_yaml_is_ignored(other: Project) -> None:
    (other.path / "models.yaml").write_bytes(bytes(range(256)) * 10)
    result = other.run("-m", "fast")
    assert_inert(other, result)
    assert len(notes(result)) == 1


def test_a_folder_named_models_yaml_is_ignored(other: Project) -> None:
    (other.path / "models.yaml").mkdir()
    result = other.run("-m", "fast")
    assert_inert(other, result)
    assert notes(result) == []


@pytest.mark.parametrize("args", [(), ("-n", "2"), ("--strict-markers",)])
def test_without_a_manifest_the_plugin_does_nothing(other: Project, args: tuple[str, ...]) -> None:
    result = other.run("-m", "fast", *args)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 1
    assert notes(result) == []
    assert not (other.path / "reports").exists()


@pytest.mark.parametrize("marker", ["full", "slow", "not fast", "not slow"])
def test_a_marker_expression_activates_the_plugin_only_if_it_selects_a_check(
    mixed: Project, marker: str
) -> None:
    mixed.pytester.makeini("[pytest]\nmarkers =\n    slow: takes long")
    result = mixed.run("-m", marker, "--collect-only", "-q")
    woken = any("models.yaml::" in line for line in result.outlines)
    assert woken == (marker == "full")


MISTAKES = {
    "key": ("\n  - id: tiny\n    contexst: [512]", "models.yaml:4: model 'tiny': *contexst*"),
    "syntax": ("\n  - id: tiny\n    load: {", "models.yaml:*: is not YAML: *"),
    "no id": ("\n  - id: tiny\n  - engine: fake", "models.yaml:4: model #2: id is missing"),
    "engine": ("\n  - id: tiny\n    engine: fakr", "models.yaml: *'fakr'*"),
}


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_a_manifest_error_names_plugin_file_line_and_how_to_disable_the_plugin(
    mixed: Project, case: str, args: tuple[str, ...]
) -> None:
    models, message = MISTAKES[case]
    mixed.manifest(models)
    result = mixed.run("-m", "fast", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    result.stderr.fnmatch_lines(
        [f"ERROR: pytest-lmstrix: {message} (-p no:lmstrix switches the plugin off)"]
    )
    assert line.startswith("ERROR: ")


def test_with_lmstrix_a_manifest_of_another_tool_is_an_error(other: Project) -> None:
    (other.path / "models.yaml").write_text(FOREIGN["dbt"])
    result = other.run("--lmstrix")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:*"])


def test_no_lmstrix_disables_the_plugin(mixed: Project) -> None:
    mixed.manifest("\n  - id: tiny\n    contexst: [512]")
    mixed.pytester.makeconftest("")
    result = mixed.run_apart("-p", "no:lmstrix", "-m", "fast")
    result.assert_outcomes(passed=1, deselected=1, warnings=1)


def test_a_marker_tests_models_beside_other_tests(mixed: Project) -> None:
    result = mixed.run("-m", "fast")
    result.assert_outcomes(passed=2, deselected=1)
    assert [each.check for each in mixed.results] == ["fast"]


def test_the_marker_of_own_checks_activates_the_plugin(mixed: Project) -> None:
    own = "import pytest\n\n@pytest.mark.lmstrix\ndef test_own(lmstrix_model): pass\n"
    mixed.pytester.makepyfile(test_own=own)
    mixed.run("-m", "lmstrix").assert_outcomes(passed=1, deselected=3)
    assert [each.check for each in mixed.results] == ["test_own"]


def test_a_report_of_the_users_own_keeps_its_title(mixed: Project) -> None:
    mixed.run("-m", "fast", "--html=mine.html")
    page = (mixed.path / "mine.html").read_text(encoding="utf-8")
    assert '<title id="head-title">mine.html</title>' in page


@pytest.mark.parametrize("path", ["test_theirs.py", "test_theirs.py::test_quick", "part"])
def test_the_plugin_is_inert_for_paths_without_the_manifest(mixed: Project, path: str) -> None:
    folder = mixed.pytester.mkdir("part")
    (folder / "test_part.py").write_text(OWN_TESTS)
    result = mixed.run("-m", "fast", path)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 1
    assert notes(result) == []
    assert mixed.engine_log == []
    assert not (mixed.path / "reports").exists()


@pytest.mark.parametrize("path", [".", "models.yaml", "./models.yaml", "part/.."])
def test_paths_that_contain_the_manifest_activate_the_plugin(mixed: Project, path: str) -> None:
    mixed.pytester.mkdir("part")
    mixed.run("-m", "fast", path.replace("/", os.sep))
    assert [each.check for each in mixed.results] == ["fast"]


@pytest.mark.parametrize("args", few_of([(), ("-n", "2")], 1), ids=["serial", "xdist"])
def test_without_paths_the_manifest_is_collected_beside_testpaths(
    mixed: Project, args: tuple[str, ...]
) -> None:
    folder = mixed.pytester.mkdir("tests")
    (folder / "test_part.py").write_text(OWN_TESTS)
    mixed.pytester.makeini("[pytest]\ntestpaths = tests")
    result = mixed.run("-m", "fast", *args)
    assert result.parseoutcomes()["passed"] == 2
    assert [each.check for each in mixed.results] == ["fast"]


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["serial", "xdist"])
@pytest.mark.parametrize(
    "form", few_of(["{name}", "./{name}", "{folder}/{name}", "x/../{name}"], 1)
)
def test_a_node_id_in_the_manifest_activates_the_plugin(
    mixed: Project, form: str, args: tuple[str, ...]
) -> None:
    mixed.pytester.mkdir("x")
    path = form.format(name="models.yaml", folder=mixed.path).replace("/", os.sep)
    result = mixed.run(f"{path}::test_deep[tiny-512]", *args)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 1
    assert [each.check for each in mixed.results] == ["deep"]


def test_a_node_id_in_the_manifest_runs_even_if_its_result_is_known(mixed: Project) -> None:
    for _ in range(2):
        mixed.run("models.yaml::test_full[tiny-512]").assert_outcomes(passed=1)


def test_a_node_id_runs_beside_tests_of_the_project(mixed: Project) -> None:
    result = mixed.run("test_theirs.py::test_slow", "models.yaml::test_full[tiny-512]")
    result.assert_outcomes(passed=2)


def test_a_node_id_in_another_file_adds_no_check_of_the_manifest(mixed: Project) -> None:
    ids = mixed.ids("models.yaml", "test_theirs.py::test_slow")
    assert ids == ["test_theirs.py::test_slow", "models.yaml::test_full[tiny-512]"]


def test_the_path_of_the_manifest_activates_the_plugin(mixed: Project) -> None:
    mixed.run("models.yaml").assert_outcomes(passed=1)
    assert [each.check for each in mixed.results] == ["full"]


def test_a_node_id_in_a_manifest_at_another_path_activates_the_plugin(mixed: Project) -> None:
    folder = mixed.pytester.mkdir("conf")
    (mixed.path / "models.yaml").rename(folder / "llms.yml")
    mixed.pytester.makeini("[pytest]\nlmstrix_models = conf/llms.yml")
    assert mixed.ids("conf/llms.yml") == ["conf/llms.yml::test_full[tiny-512]"]
    mixed.run("conf/llms.yml::test_full[tiny-512]").assert_outcomes(passed=1)
    mixed.run("-m", "fast").assert_outcomes(passed=2, deselected=1)


def test_a_node_id_through_a_link_activates_the_plugin(mixed: Project) -> None:
    link = mixed.path / "link"
    try:
        link.symlink_to(mixed.path, target_is_directory=True)
    except OSError:  # Windows allows it to some users only
        link = mixed.path
    result = mixed.run(f"{link / 'models.yaml'}::test_full[tiny-512]")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("args", few_of([(), ("-n", "2")], 1), ids=["serial", "xdist"])
def test_the_ini_key_activates_the_plugin_and_keeps_other_tests(
    mixed: Project, args: tuple[str, ...]
) -> None:
    mixed.pytester.makeini("[pytest]\nlmstrix = true")
    result = mixed.run(*args)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 3
    assert [each.check for each in mixed.results] == ["full"]


def test_with_the_ini_key_paths_select_tests_as_usual(mixed: Project) -> None:
    mixed.pytester.makeini("[pytest]\nlmstrix = true")
    assert mixed.ids("test_theirs.py::test_slow") == ["test_theirs.py::test_slow"]
    assert mixed.ids("--lmstrix") == ["models.yaml::test_full[tiny-512]"]
    assert mixed.ids("-o", "lmstrix=false") == [
        "test_theirs.py::test_quick",
        "test_theirs.py::test_slow",
    ]


def test_with_the_ini_key_help_needs_no_manifest(other: Project) -> None:
    other.pytester.makeini("[pytest]\nlmstrix = true")
    assert other.run("--help").ret == pytest.ExitCode.OK
    result = other.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: pytest-lmstrix: *models.yaml*-p no:lmstrix*"])


def test_an_invalid_ini_key_names_the_file_and_the_key(mixed: Project) -> None:
    mixed.pytester.makeini("[pytest]\nlmstrix = perhaps")
    result = mixed.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *tox.ini: lmstrix: *perhaps*"])


REPORTS = ("registry.jsonl", "report.html", "run.json", "summary.md")


@pytest.mark.parametrize("way", ["option", "ini"])
def test_reports_and_registry_are_written_to_the_chosen_folder(mixed: Project, way: str) -> None:
    mixed.pytester.makeini("[pytest]\nlmstrix_reports = out" if way == "ini" else "[pytest]")
    args = ["--lmstrix-reports", "out"] if way == "option" else []
    result = mixed.run("--lmstrix", *args)
    result.stdout.fnmatch_lines([f"recorded in {Path('out', 'registry.jsonl')}"])
    assert all((mixed.path / "out" / name).is_file() for name in REPORTS)
    assert not (mixed.path / "reports").exists()
    assert "tiny" in mixed.run("--lmstrix-list", *args).stdout.str()


def test_the_registry_can_be_in_another_folder_than_the_reports(mixed: Project) -> None:
    mixed.run("--lmstrix", "--lmstrix-reports=out", "--lmstrix-registry=kept/all.jsonl")
    assert (mixed.path / "kept" / "all.jsonl").is_file()
    assert (mixed.path / "out" / "report.html").is_file()
    assert not (mixed.path / "out" / "registry.jsonl").exists()
