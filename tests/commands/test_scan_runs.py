"""`--lmstrix-scan` with the unmodified SDK, and with GGUF files in temporary folders."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_lmstrix.commands.run
import pytest_lmstrix.engines.lmstudio.engine  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.manifest.read import read_manifest
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel
from tests.standin.model_files import write_broken, write_whole

MODELS = (
    StandInModel(key="org/small", size_bytes=1_000_000_000, quantization="Q4_K_M", vision=True),
    StandInModel(key="big@q8_0", max_context_length=32_768, trained_for_tool_use=True),
    StandInModel(key="vectors", type="embedding"),
)
try:
    importlib.import_module("xllamacpp")
except ModuleNotFoundError:
    LLAMACPP = False
else:
    LLAMACPP = True
needs_llamacpp = pytest.mark.skipif(not LLAMACPP, reason="the extra llamacpp is not installed")


@pytest.fixture
def empty(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without a manifest, for a user without models or settings."""
    (project.path / "models.yaml").unlink()
    project.pytester.makeconftest("")
    home = project.path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return project


@pytest.fixture
def server() -> Iterator[LmStudioServer]:
    with LmStudioServer(MODELS) as server:
        yield server


@pytest.fixture
def unreachable_host() -> Iterator[str]:
    """A host where nothing listens: the port is bound, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def scan(project: Project, *servers: LmStudioServer, args: tuple[str, ...] = ()) -> Any:
    hosts = [f"--lmstrix-host={server.host}" for server in servers]
    return project.run("--lmstrix-scan", *hosts, *args)


def found(project: Project) -> dict[str, Model]:
    return {model.id: model for model in read_manifest(project.path / "models.yaml")}


def test_a_manifest_is_created_from_lm_studio(empty: Project, server: LmStudioServer) -> None:
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([
        f"lmstudio {server.host}  3 models",
        "3 new models in models.yaml",
        "model      engine    type       *size  quantization  architecture  declared  capabilities",
        "org/small  lmstudio  llm        1.0 GB  Q4_K_M        llama          131,072  vision",
        "big@q8_0   lmstudio  llm        2.0 GB  Q4_K_M        llama           32,768  tools",
        "embedding models: for your own checks",
        "vectors",
    ])  # fmt: skip
    models = found(empty)
    assert models["org/small"] == Model(
        id="org/small",
        engine="lmstudio",
        context_limit=131_072,
        size_bytes=1_000_000_000,
        architecture="llama",
        quantization="Q4_K_M",
        capabilities=("vision",),
    )
    assert models["vectors"].type == "embedding"
    text = (empty.path / "models.yaml").read_text(encoding="utf-8")
    assert text.startswith("# The models that `pytest --lmstrix` tests")
    assert server.violations == []
    assert server.loads() == []


def test_existing_content_is_kept_byte_for_byte(empty: Project, server: LmStudioServer) -> None:
    old = b"models:  # mine\r\n  - {id: 'big@q8_0', engine: lmstudio}\r\n\r\n  # the end"
    path = empty.path / "models.yaml"
    path.write_bytes(old)
    scan(empty, server).stdout.fnmatch_lines(["2 new models in models.yaml"])
    new = path.read_bytes()
    assert new.startswith(old)
    assert list(found(empty)) == ["big@q8_0", "org/small", "vectors"]
    scan(empty, server).stdout.fnmatch_lines(["0 new models in models.yaml"])
    assert path.read_bytes() == new


def test_missing_models_are_reported_but_not_removed(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest(
        "\n  - {id: lost, engine: lmstudio}\n  - {id: vectors, engine: lmstudio, type: embedding}"
        "\n  - {id: far, engine: lmstudio, source: 'https://host.example/a.gguf'}"
    )
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "def pytest_lmstrix_engines(config): return [FakeEngine()]"
    )
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    lines = result.outlines
    at = lines.index("gone: in models.yaml, but no longer available")
    assert lines[at + 1 : at + 3] == ["lmstudio  lost", ""]
    assert set(found(empty)) == {"lost", "vectors", "far", "org/small", "big@q8_0", "tiny"}
    assert found(empty)["tiny"].engine == "fake"


def test_no_model_is_reported_missing_while_a_host_is_unreachable(
    empty: Project, server: LmStudioServer, unreachable_host: str
) -> None:
    empty.manifest("\n  - {id: lost, engine: lmstudio}")
    result = scan(empty, server, args=(f"--lmstrix-host={unreachable_host}",))
    result.stdout.no_fnmatch_line("gone*")
    result.stdout.fnmatch_lines(["3 new models in models.yaml"])


@pytest.mark.parametrize(
    "broken",
    [{"type": "diffusion"}, {"modelKey": None}, {"sizeBytes": "many"}, {"type": 5, "modelKey": 3}],
    ids=["type", "key", "size", "both"],
)
def test_an_invalid_listing_entry_is_skipped(empty: Project, broken: dict[str, Any]) -> None:
    models = [StandInModel(key="bad\x1b[2J", listing=broken), *MODELS]
    with LmStudioServer(models) as server:
        result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["3 new models in models.yaml", "left out", "*which LM Studio*"])
    assert "\x1b" not in result.stdout.str()
    assert list(found(empty)) == ["org/small", "big@q8_0", "vectors"]
    assert result.errlines == []


def test_facts_invalid_in_a_manifest_are_omitted_and_reported(empty: Project) -> None:
    models = [
        StandInModel(key="two\nlines"),
        StandInModel(key="endless", max_context_length=2**40),
    ]
    with LmStudioServer(models) as server:
        result = scan(empty, server)
    result.stdout.fnmatch_lines([
        "left out",
        "lmstudio: 'two lines' is not a valid id for a manifest",
        "lmstudio: 'endless': context_limit 1099511627776 is not valid; left out",
    ])  # fmt: skip
    assert found(empty)["endless"].context_limit is None
    assert list(found(empty)) == ["endless"]


def test_an_id_that_hides_what_it_is_is_left_out_and_shown_without_its_disguise(
    empty: Project,
) -> None:
    keys = ["safe\u202efugg", "\x1b[31mred", "zero\u200bwidth", "fine"]
    with LmStudioServer([StandInModel(key=key) for key in keys]) as server:
        result = scan(empty, server)
    assert list(found(empty)) == ["fine"]
    shown = result.stdout.str() + result.stderr.str()
    for harmless in ("safefugg", "red", "zerowidth"):
        assert f"lmstudio: '{harmless}' is not a valid id for a manifest" in shown
    assert not {"\u202e", "\x1b", "\u200b"} & set(shown)
    assert "\u202e" not in (empty.path / "models.yaml").read_text("utf-8")


def test_without_models_no_manifest_is_created(empty: Project) -> None:
    with LmStudioServer() as server:
        result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["0 new models in models.yaml, which was not created"])
    assert not (empty.path / "models.yaml").exists()


@pytest.mark.parametrize("width", [40, 80])
def test_output_fits_the_terminal(
    empty: Project, server: LmStudioServer, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = scan(empty, server).outlines
    assert max(map(len, lines)) <= width
    assert any(line.startswith("org/small") for line in lines)


def test_a_model_on_two_hosts_is_listed_once(empty: Project, server: LmStudioServer) -> None:
    others = [MODELS[0], StandInModel(key="big@q8_0", size_bytes=7), StandInModel(key="other")]
    with LmStudioServer(others) as second:
        result = scan(empty, server, second)
        result.stdout.fnmatch_lines([
            f"lmstudio {server.host}  3 models",
            f"lmstudio {second.host}  3 models",
            "left out",
            f"lmstudio {second.host}: 'big@q8_0' is not the same file as on"
            f" lmstudio {server.host}",
        ])  # fmt: skip
        result.stdout.no_fnmatch_line("*'org/small' is not the same*")
    assert list(found(empty)) == ["org/small", "big@q8_0", "vectors", "other"]
    assert found(empty)["big@q8_0"].size_bytes == 2_000_000_000


def test_an_unreachable_named_host_is_reported_with_exit_1(
    empty: Project, server: LmStudioServer, unreachable_host: str
) -> None:
    result = scan(empty, server, args=(f"--lmstrix-host={unreachable_host}",))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"lmstudio {server.host}  3 models",
                                 f"lmstudio {unreachable_host} * not asked: *"])  # fmt: skip
    assert len(found(empty)) == 3
    assert result.errlines == []


def test_a_server_error_is_reported(empty: Project, server: LmStudioServer) -> None:
    fault = Fault(where="listDownloadedModels", kind="close_socket", times=9)
    with LmStudioServer(MODELS, faults=[fault]) as ill:
        result = scan(empty, ill, server)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"lmstudio {ill.host} * not asked: *"])
    assert len(found(empty)) == 3


def test_an_lm_studio_not_configured_is_optional(
    empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytest_lmstrix.engines.lmstudio.connection._Client.find_default_local_api_host",
        lambda: None,
    )
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "def pytest_lmstrix_engines(config): return FakeEngine()"
    )
    result = scan(empty)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["lmstudio * not asked: LM Studio is not reachable*"])
    assert [model.engine for model in found(empty).values()] == ["fake"]
    empty.manifest("\n  - {id: a, engine: lmstudio}")
    assert scan(empty).ret == pytest.ExitCode.TESTS_FAILED, "models.yaml relies on it"


def test_unknown_engines_of_the_manifest_are_reported(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest("\n  - {id: a, engine: fake}")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["fake * not asked: 'fake' is not a known engine*"])
    result.stdout.no_fnmatch_line("gone*")


def test_a_missing_llamacpp_package_is_reported(
    empty: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_lmstrix.engines.catalog.find_spec", lambda name: None)
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["llamacpp * not asked: * pip install 'pytest-lmstrix?llamacpp?'", "3 new models*"]
    )


def test_an_invalid_manifest_stops_the_scan(empty: Project, server: LmStudioServer) -> None:
    empty.manifest("\n  - {id: a, contexst: 1}")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:3: model 'a': 'contexst' is not a valid key*"])
    assert server.calls == []


def test_a_manifest_that_cannot_be_appended_to_is_reported(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest("[{id: a, engine: lmstudio}]")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert line.startswith("ERROR: models.yaml: nothing can be appended")
    result.stdout.fnmatch_lines([f"lmstudio {server.host}  3 models"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ConnectionRefusedError('not running')", "not running"),
        ("KeyError('data')", "KeyError: 'data'"),
        ("SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_failing_custom_engine_does_not_stop_the_others(
    empty: Project, server: LmStudioServer, error: str, message: str
) -> None:
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "class Away(FakeEngine):\n"
        f"    def models(self): raise {error}\n"
        "def pytest_lmstrix_engines(config): return [Away(name='away'), FakeEngine()]"
    )
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [f"away * not asked: {message}", "fake * 1 model", "4 new models in models.yaml"]
    )


def test_ctrl_c_ends_the_scan_quietly_without_changes(empty: Project) -> None:
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "class Interrupted(FakeEngine):\n"
        "    def models(self): raise KeyboardInterrupt\n"
        "    def close(self): print('closed')\n"
        "def pytest_lmstrix_engines(config): return Interrupted(name='lmstudio')"
    )
    result = empty.run_apart("--lmstrix-scan")
    assert (result.ret, result.outlines) == (pytest.ExitCode.INTERRUPTED, ["closed"])
    assert result.errlines == []
    assert not (empty.path / "models.yaml").exists()


@needs_llamacpp
class TestGgufFiles:
    """GGUF files with real headers."""

    @pytest.fixture
    def folder(self, empty: Project) -> Path:
        empty.pytester.makeini("[pytest]\nlmstrix_gguf_dirs =\n    more files\n    ~/of mine")
        folder = empty.path / "more files"
        folder.mkdir()
        (empty.path / "home" / "of mine").mkdir()
        return folder

    def test_default_and_configured_folders_are_searched(
        self, empty: Project, folder: Path, server: LmStudioServer
    ) -> None:
        from tests.standin.gguf_bytes import write_model

        home = empty.path / "home"
        hub = home / ".cache" / "huggingface" / "hub" / "models--org--repo" / "snapshots" / "abc"
        places = {
            "ours": folder,
            "mine": home / "of mine",
            "studio": home / ".lmstudio" / "models" / "org" / "repo",
            "hub": hub,
        }
        for name, place in places.items():
            write_model(place / f"{name}.gguf")
        write_model(folder / "vectors.gguf", "nomic-bert")
        (folder / "broken.gguf").write_bytes(b"GGUF\x03\x00")
        (folder / "projector.gguf").write_bytes(b"not at all")
        result = scan(empty, server)
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines([
            "llamacpp * 5 models", "8 new models in models.yaml", "vectors@llamacpp *",
            "left out", "*broken.gguf: damaged: *",
            "*projector.gguf: a text, not a model: not at all",
        ])  # fmt: skip
        models = found(empty)
        assert models["ours"] == Model(
            id="ours",
            engine="llamacpp",
            source=str(folder / "ours.gguf"),
            context_limit=4096,
            size_bytes=(folder / "ours.gguf").stat().st_size,
            architecture="llama",
            quantization="Q4_K_M",
        )
        assert {name: models[name].source for name in places} == {
            name: str(place / f"{name}.gguf") for name, place in places.items()
        }
        assert models["vectors@llamacpp"].type == "embedding"
        scan(empty, server).stdout.fnmatch_lines(["0 new models in models.yaml"])

    def test_of_a_hundred_files_the_models_are_registered(
        self, empty: Project, folder: Path, server: LmStudioServer
    ) -> None:
        files = [*write_whole(folder), *write_broken(folder)]
        assert len(files) >= 100
        result = scan(empty, server)
        assert result.ret == pytest.ExitCode.OK
        registered = {file.id for file in files if file.registered}
        assert registered == {
            name for name, model in found(empty).items() if model.engine == "llamacpp"
        }
        assert found(empty)["scout"].context_limit == 10_485_760
        left_out = result.outlines[result.outlines.index("left out") + 1 :]
        for file in files:
            if not file.registered:
                [line] = [each for each in left_out if str(file.path) in each]
                assert file.words in line

    def test_a_file_is_recognized_under_any_id_and_path(
        self, empty: Project, folder: Path, server: LmStudioServer
    ) -> None:
        from tests.standin.gguf_bytes import write_model

        write_model(folder / "file.gguf")
        write_model(folder / "moved.gguf")
        empty.manifest(
            "\n  - {id: mine, engine: llamacpp, source: './more files/../more files/file.gguf'}"
            "\n  - {id: moved, engine: llamacpp, source: elsewhere/moved.gguf}"
        )
        empty.pytester.makeconftest(
            "from tests.standin.fake_engine import FakeEngine\n"
            "def pytest_lmstrix_engines(config): return FakeEngine(())"
        )
        result = scan(empty, server)
        assert result.ret == pytest.ExitCode.OK
        assert set(found(empty)) == {
            "mine", "moved", "moved@llamacpp", "org/small", "big@q8_0", "vectors",
        }  # fmt: skip
        result.stdout.fnmatch_lines(["gone: in models.yaml*", "llamacpp  moved"])

    def test_a_hub_file_is_recognized_in_its_cache(
        self, empty: Project, folder: Path, server: LmStudioServer
    ) -> None:
        from tests.standin.gguf_bytes import write_model

        hub = empty.path / "home" / ".cache" / "huggingface" / "hub"
        write_model(hub / "models--org--repo" / "snapshots" / "abc" / "X.gguf")
        empty.manifest("\n  - {id: X, engine: llamacpp, source: 'hf://org/repo/X.gguf'}")
        result = scan(empty, server)
        assert result.ret == pytest.ExitCode.OK
        assert "X@llamacpp" not in found(empty)
        assert found(empty)["X"].source == "hf://org/repo/X.gguf"

    def test_a_missing_folder_is_reported(
        self, empty: Project, folder: Path, server: LmStudioServer
    ) -> None:
        folder.rmdir()
        result = scan(empty, server)
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["left out", f"llamacpp: {folder}: no such folder"])
