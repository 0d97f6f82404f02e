"""GGUF files in temporary folders are found by `--lmstrix-scan`."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from pytest_lmstrix.core.types import Model
from tests.commands.scan.scans import found, scan
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer
from tests.standin.model_files import write_broken, write_whole

try:
    importlib.import_module("xllamacpp")
except ModuleNotFoundError:
    LLAMACPP = False
else:
    LLAMACPP = True

needs_llamacpp = pytest.mark.skipif(not LLAMACPP, reason="the extra llamacpp is not installed")


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
