"""Files of other programs: replaced atomically with a backup, or untouched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_lmstrix.export.document import DocumentError
from pytest_lmstrix.export.files import ExportError, diff, plan_file, write


def edit(text: str) -> str:
    if "bad" in text:
        raise DocumentError("expected a value at line 1, column 1")
    return text.replace("4096", "8192")


def a_file(folder: Path, data: bytes = b"x: 4096\r\n\ty\n") -> Path:
    path = folder / "config.yaml"
    path.write_bytes(data)
    return path


def test_the_former_content_is_kept_in_a_backup(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    path.chmod(0o640)
    backup = write(plan_file(path, edit))
    assert path.read_bytes() == b"x: 8192\r\n\ty\n"
    assert backup is not None
    assert backup.read_bytes() == b"x: 4096\r\n\ty\n"
    assert sorted(tmp_path.iterdir()) == sorted([path, backup])
    assert backup.name.startswith("config.yaml.before-lmstrix-")
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == backup.stat().st_mode & 0o777 == 0o640


def test_a_byte_order_mark_is_kept_or_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path, b"\xef\xbb\xbfx: 4096")
    assert plan_file(path, edit).new == b"\xef\xbb\xbfx: 8192"
    with pytest.raises(ExportError, match="byte order mark"):
        plan_file(path, edit, bom=False)


def test_a_plan_without_changes_keeps_every_byte(tmp_path: Path) -> None:
    plan = plan_file(a_file(tmp_path, b"\xef\xbb\xbfx"), edit)
    assert not plan.changes
    assert plan.new == b"\xef\xbb\xbfx"


def test_a_missing_file_is_created(tmp_path: Path) -> None:
    plan = plan_file(tmp_path / "new", lambda text: f"{text}x\n")
    assert list(diff(plan)) == ["--- /dev/null", f"+++ {tmp_path / 'new'}", "@@ -0,0 +1 @@", "+x"]
    assert write(plan) is None
    assert (tmp_path / "new").read_bytes() == b"x\n"
    with pytest.raises(ExportError, match="there is no folder"):
        plan_file(tmp_path / "no" / "new", edit)


def test_the_diff_shows_what_changes(tmp_path: Path) -> None:
    path = a_file(tmp_path, b"a\nx: 4096\x1b[2J\n")
    lines = list(diff(plan_file(path, edit)))
    assert lines == [f"--- {path}", f"+++ {path}", "@@ -1,2 +1,2 @@", " a", "-x: 4096", "+x: 8192"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"apiKey": "sk-1\\"x", "max_tokens": 4096}', '{"apiKey": ***, "max_tokens": 4096}'),
        ("  api_key: sk-1  # mine", "  api_key: ***  # mine"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("cmd: server --api-key abc -c 1", "cmd: server --api-key *** -c 1"),
        ("base: http://me:pw@h/v1?key=1", "base: http://***@h/v1?***"),
        ('"apiKey": "{env:KEY}", token: ${T}', '"apiKey": "{env:KEY}", token: ${T}'),
        ("api_key: os.environ/KEY", "api_key: os.environ/KEY"),
    ],
)
def test_a_diff_shows_no_secret(tmp_path: Path, line: str, shown: str) -> None:
    path = a_file(tmp_path, f"{line}\nx: 4096\n".encode())
    plan = plan_file(path, edit)
    assert shown in "\n".join(diff(plan))
    assert plan.new.decode().startswith(line.replace("4096", "8192"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"bad", "expected a value at line 1, column 1; nothing was"),
        (b"a\n\xff\xfe", ":2: must be UTF-8, got byte 0xff"),
    ],
)
def test_an_unreadable_file_is_untouched(tmp_path: Path, data: bytes, problem: str) -> None:
    path = a_file(tmp_path, data)
    with pytest.raises(ExportError, match=problem):
        plan_file(path, edit)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_file_is_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    path.chmod(0o444)
    with pytest.raises(ExportError, match="is read-only"):
        plan_file(path, edit)
    path.chmod(0o644)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is not a file"):
        plan_file(tmp_path, edit)


def test_a_file_that_changes_meanwhile_is_untouched(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    plan = plan_file(path, edit)
    path.write_bytes(b"other")
    with pytest.raises(ExportError, match="changed by another program"):
        write(plan)
    assert path.read_bytes() == b"other"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link in one folder to a file in another."""
    (tmp_path / "dotfiles").mkdir()
    a_file(tmp_path / "dotfiles")
    link = tmp_path / "link.yaml"
    try:
        link.symlink_to(Path("dotfiles", "config.yaml"))
    except OSError:
        pytest.skip("links are not permitted here")
    return link


def test_a_link_stays_a_link_to_the_new_content(link: Path) -> None:
    backup = write(plan_file(link, edit))
    assert link.is_symlink()
    assert link.read_bytes() == b"x: 8192\r\n\ty\n"
    assert backup is not None
    assert backup.parent.name == "dotfiles"


def test_a_dangling_link_is_refused(link: Path) -> None:
    Path(os.path.realpath(link)).unlink()
    with pytest.raises(ExportError):
        plan_file(link, edit)
    assert link.is_symlink()


def test_a_file_outside_its_folder_is_refused(link: Path) -> None:
    home = link.parent / "home"
    (home / ".internal").mkdir(parents=True)
    inside = home / ".internal" / "deep" / "x.json"
    write(plan_file(inside, lambda text: "{}", inside=home))
    assert inside.read_bytes() == b"{}"
    (home / "link").symlink_to(link)
    for path in (home / "link", home / ".." / "x"):
        with pytest.raises(ExportError, match="leads out of"):
            plan_file(path, edit, inside=home)
    with pytest.raises(ExportError, match="not the home folder"):
        plan_file(inside, edit, inside=link.parent)
