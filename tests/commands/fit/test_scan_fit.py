"""`--lmstrix-scan`: the largest context length that fits, of new models; with `-v`, of all."""

from __future__ import annotations

import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.commands import fit, scan_fit
from pytest_lmstrix.core.memory import MachineMemory
from tests.end_to_end.project import Project
from tests.standin import header_file

GIB = 1024**3


@pytest.fixture
def scanned(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.pytester.makeconftest("")
    (project.path / "models.yaml").unlink()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(project.path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(project.path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    machine = MachineMemory(total_bytes=64 * GIB, available_bytes=30 * GIB)
    monkeypatch.setattr(fit, "read_machine", lambda *_: machine)
    monkeypatch.setattr(scan_fit, "read_machine", lambda *_: machine)
    folder = project.path / "weights"
    folder.mkdir()
    header_file.write_tiny_llama(folder / "tiny.gguf")
    header_file.write_llama_70b(folder / "big.gguf")
    project.pytester.makeini("[pytest]\nlmstrix_gguf_dirs = weights\n")
    return project


def test_a_verbose_scan_prints_the_largest_context_that_fits(
    scanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_fit, "MODEL_SECONDS", 100.0)
    result = scanned.run("--lmstrix-scan", "-v")
    result.stdout.fnmatch_lines_random(
        ["largest context that fits", "*tiny*4,096 of 4,096", "*big*fits at no context length"]
    )


def test_a_scan_prints_the_largest_context_of_new_models(
    scanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_fit, "SCAN_SECONDS", 100.0)
    monkeypatch.setattr(scan_fit, "MODEL_SECONDS", 100.0)
    result = scanned.run("--lmstrix-scan")
    result.stdout.fnmatch_lines_random(
        ["largest context that fits", "*tiny*4,096 of 4,096", "*big*fits at no context length"]
    )


def test_a_plain_scan_estimates_no_model_that_is_known(
    scanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_fit, "SCAN_SECONDS", 0.0)
    scanned.run("--lmstrix-scan")
    result = scanned.run("--lmstrix-scan")
    assert "largest context" not in result.stdout.str()


def test_all_new_models_share_a_time_limit(
    scanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_fit, "SCAN_SECONDS", 0.0)
    result = scanned.run("--lmstrix-scan")
    result.stdout.fnmatch_lines_random(
        [f"*{name}*not estimated within 0 s; *" for name in ("big", "tiny")]
    )


def test_a_model_that_takes_too_long_is_a_line(
    scanned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_fit, "MODEL_SECONDS", 0.0)
    result = scanned.run("--lmstrix-scan", "-v")
    result.stdout.fnmatch_lines_random(["*tiny*not estimated within 0 s; *"])
