"""`--lmstrix-export`, as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.export.results import QWEN_PATH, here
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.lmstudio.server import LmStudioServer

MODELS = """
  - {id: qwen3-8b, engine: lmstudio, tags: [mine]}
  - {id: smol, engine: llamacpp, source: smol.gguf}
  - {id: untested}
  - {id: elsewhere}
  - {id: broken}
  - {id: vectors, type: embedding}
"""
NOTE = "lmstrix: 30000 tokens passed full on 2026-03-01, lmstudio 0.4.1"


def record(project: Project, *results: Result) -> None:
    Registry(project.path / "reports" / "registry.jsonl").append_many(results)


@pytest.fixture
def tested(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two verified models and four others."""
    monkeypatch.delenv("COLUMNS", raising=False)
    project.manifest(MODELS)
    (project.path / "smol.gguf").write_bytes(b"GGUF")
    qwen = {"model": "qwen3-8b", "fingerprint": f"size:5 path:{QWEN_PATH}"}
    smol = {"model": "smol", "engine": "llamacpp", "fingerprint": "size:4 path:smol.gguf"}
    record(
        project,
        here(30_000, **qwen),
        here(10_000, check="deep", **qwen),
        here(8_000, **smol),
        here(8_000, model="elsewhere", engine="fake", machine="other"),
        here(8_000, "out_of_memory", model="broken", engine="fake"),
    )
    return project


def exported(project: Project, *args: str) -> dict[str, int]:
    result = project.run("--lmstrix-export=json", *args)
    models = json.loads("\n".join(result.outlines))["models"]
    return {name: model["context_length"] for name, model in models.items()}


def test_verified_models_are_printed_and_others_listed_with_the_reason(tested: Project) -> None:
    result = tested.run("--lmstrix-export=json")
    assert result.ret == pytest.ExitCode.OK
    models = json.loads("\n".join(result.outlines))["models"]
    assert list(models) == ["qwen3-8b", "smol"]
    assert models["qwen3-8b"]["check"] == "full"
    assert models["qwen3-8b"]["at"] == "2026-03-01T12:00:00Z"
    assert models["qwen3-8b"]["engine_version"] == "0.4.1"
    assert [line for line in result.errlines if line.startswith("not exported")] == [
        "not exported: untested: untested, by its results with these weights and load settings",
        "not exported: elsewhere: not verified on this machine",
        "not exported: broken: no verified size (out_of_memory)",
        "not exported: vectors: an embedding model, whose sizes are not tested",
    ]
    assert tested.engine_log == []


def test_check_and_margin_choose_the_size(tested: Project) -> None:
    assert exported(tested) == {"qwen3-8b": 30_000, "smol": 8_000}
    assert exported(tested, "--lmstrix-check=deep") == {"qwen3-8b": 10_000}
    assert exported(tested, "--lmstrix-check=full") == {"qwen3-8b": 30_000, "smol": 8_000}
    assert exported(tested, "--lmstrix-margin=12.5") == {"qwen3-8b": 26_250, "smol": 7_000}
    assert exported(tested, "-k", "mine") == {"qwen3-8b": 30_000}
    result = tested.run("--lmstrix-export=json", "--lmstrix-check=deep")
    assert "not exported: smol: verified by full, not by deep" in result.errlines


@pytest.mark.parametrize("damage", [b"GGUF, changed", None])
def test_changed_or_missing_weights_are_not_exported(tested: Project, damage: bytes | None) -> None:
    (tested.path / "smol.gguf").unlink()
    if damage:
        (tested.path / "smol.gguf").write_bytes(damage)
    assert exported(tested) == {"qwen3-8b": 30_000}


def test_a_source_in_an_unknown_home_is_missing(project: Project) -> None:
    project.manifest("[{id: smol, engine: llamacpp, source: ~nobody1/smol.gguf}]")
    record(project, here(8_000, model="smol", engine="llamacpp", fingerprint="size:4 path:smol"))
    result = project.run("--lmstrix-export=json")
    reason = "its file is missing or has changed since the last test"
    assert f"not exported: smol: {reason}" in result.errlines


def test_without_a_verified_model_the_exit_code_is_1(project: Project) -> None:
    result = project.run("--lmstrix-export=json,zed:settings.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.outlines == []
    assert "no model is verified: nothing to export" in result.errlines
    assert not (project.path / "settings.json").exists()


SETTINGS = b'\xef\xbb\xbf{ // mine\r\n\t"provider": {"lmstudio": {}},\r\n}\r\n'
MERGED = (
    '\ufeff{ // mine\r\n\t"provider": {"lmstudio": {"models": {"qwen3-8b": {"limit": {"context":'
    f' 30000 /* {NOTE} */, "output": 4096 /* {NOTE} */}}}}}}}}}},\r\n}}\r\n'
).encode()


def test_a_file_is_shown_and_merged_with_a_backup(tested: Project) -> None:
    path = Path(tested.path, "a, b.json")
    path.write_bytes(SETTINGS)
    dry = tested.run("--lmstrix-export=opencode:a, b.json", "--lmstrix-export-dry-run")
    assert path.read_bytes() == SETTINGS
    result = tested.run("--lmstrix-export=opencode:a, b.json")
    assert result.ret == pytest.ExitCode.OK
    assert path.read_bytes() == MERGED
    assert result.outlines == dry.outlines
    assert [line for line in result.outlines if line.startswith("-\t")]
    (backup,) = tested.path.glob("a, b.json.before-lmstrix-*")
    assert backup.read_bytes() == SETTINGS
    again = tested.run("--lmstrix-export=opencode:a, b.json")
    assert again.outlines == []
    assert f"{path}: nothing to change" in again.errlines
    assert len(list(tested.path.glob("a, b.json*"))) == 2


def test_no_file_is_written_if_one_of_them_is_damaged(tested: Project) -> None:
    good, bad = tested.path / "good.json", tested.path / "bad.json"
    good.write_bytes(SETTINGS)
    bad.write_bytes(SETTINGS[:-4])
    result = tested.run("--lmstrix-export=opencode:good.json", "--lmstrix-export=kilo:bad.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (error,) = (line for line in result.errlines if line.startswith("ERROR"))
    assert "bad.json: expected a key at line 2, column " in error
    assert error.endswith("; nothing was changed")
    assert (good.read_bytes(), bad.read_bytes()) == (SETTINGS, SETTINGS[:-4])
    assert result.outlines == []


def test_a_file_cannot_be_given_twice(tested: Project) -> None:
    path = tested.path / "x.json"
    path.write_bytes(SETTINGS)
    result = tested.run("--lmstrix-export=opencode:x.json", "--lmstrix-export=kilo:./x.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any("x.json: is given twice" in line for line in result.errlines)
    assert path.read_bytes() == SETTINGS


def test_lm_studio_gets_a_file_for_each_of_its_models(tested: Project) -> None:
    home = tested.path / "home"
    (home / ".internal").mkdir(parents=True)
    result = tested.run("--lmstrix-export=lmstudio:home")
    assert result.ret == pytest.ExitCode.OK
    folder = home / ".internal" / "user-concrete-model-default-config"
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    assert file == folder / f"{QWEN_PATH}.json"
    assert json.loads(file.read_bytes())["load"]["fields"] == [
        {"key": "llm.load.contextLength", "value": 30_000}
    ]
    reason = "LM Studio does not run it, or its path is unknown"
    assert f"lmstudio: not exported: smol: {reason}" in result.errlines


@pytest.mark.parametrize(
    ("obeyed", "line"),
    [
        (True, "lmstudio: qwen3-8b: in force: it loads with 30,000 tokens"),
        (False, "lmstudio: qwen3-8b: loaded with 4,096 tokens, not the 30,000 written"),
    ],
)
def test_a_load_shows_whether_lm_studio_obeys_its_file(
    tested: Project, obeyed: bool, line: str
) -> None:
    home = tested.path / "home"
    (home / ".internal").mkdir(parents=True)
    model = StandInModel(key="qwen3-8b", path=QWEN_PATH, max_context_length=100_000)
    with LmStudioServer([model], home=home if obeyed else None) as server:
        result = tested.run("--lmstrix-export=lmstudio:home", f"--lmstrix-host={server.host}")
        assert result.ret == pytest.ExitCode.OK
        assert line in result.errlines
        (load,) = server.loads()
        assert (load.context_length, load.config) == (None, {})
        assert server.loaded() == ()
        loads = len(server.loads())
        shown = ["--lmstrix-export=lmstudio:home", "--lmstrix-export-dry-run"]
        tested.run(*shown, f"--lmstrix-host={server.host}")
        assert len(server.loads()) == loads


def test_what_lm_studio_takes_is_not_checked_without_a_server(tested: Project) -> None:
    (tested.path / "home" / ".internal").mkdir(parents=True)
    result = tested.run("--lmstrix-export=lmstudio:home", "--lmstrix-host=127.0.0.1:9")
    assert result.ret == pytest.ExitCode.OK
    start = "lmstudio: qwen3-8b: not checked whether it is in force: "
    assert any(line.startswith(start) for line in result.errlines)


def test_a_path_of_lm_studio_cannot_leave_its_folder(tested: Project) -> None:
    (tested.path / "home" / ".internal").mkdir(parents=True)
    for path in ("../../x.gguf", "/x.gguf", "C:\\x.gguf", "..\\x.gguf"):
        record(tested, here(9_000, model="qwen3-8b", fingerprint=f"size:5 path:{path}"))
        tested.run("--lmstrix-export=lmstudio:home")
        assert [each.name for each in (tested.path / "home").rglob("*")] == [".internal"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--lmstrix-export=emacs"], "--lmstrix-export: 'emacs' is not a known program; choose"),
        (["--lmstrix-export=json", "--lmstrix-margin=100"], "--lmstrix-margin: 100 is not a perc"),
        (["--lmstrix-export=json", "--lmstrix-margin=nan"], "--lmstrix-margin: nan is not a perc"),
        (["--lmstrix-export=zed:~nobody1/x"], "~nobody1/x: there is no folder"),
        (["--lmstrix-export=json", "--lmstrix-list"], "--lmstrix-list and --lmstrix-export cannot"),
    ],
)
def test_invalid_options_are_refused(tested: Project, arguments: list[str], error: str) -> None:
    result = tested.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any(error in line for line in result.errlines)
