"""A full disk: no traceback, no reported result is lost, nothing stays loaded."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.project import Project


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 kB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "none", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a small disk, on Linux")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["", "-n2"])
def test_a_full_disk_ends_the_run(
    project: Project, small_disk: Path, args: tuple[str, ...]
) -> None:
    project.engine(**{f"m{n}": "" for n in range(30)})
    project.manifest("[" + ", ".join(f"{{id: m{n}, contexts: [512]}}" for n in range(30)) + "]")
    registry = small_disk / "reports" / "registry.jsonl"
    result = project.run_apart("--lmstrix", "--lmstrix-registry", str(registry), "-v", *args)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["*results cannot be recorded*registry.jsonl*"])
    recorded = registry.read_bytes().count(b"\n")
    assert "recorded in" not in result.stdout.str()
    assert 3 < recorded < 30
    loads = len(project.engine_log) // 2
    assert recorded < loads <= 30 if args else loads == recorded + 1
