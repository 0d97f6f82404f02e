"""Terminal output: the live status, intact test output, and tables that fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.project import Project

pyte = pytest.importorskip("pyte")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

LONG = "a-model-with-quite-a-long-name-q4_k_m"
CONFTEST = """
import time
from pathlib import Path
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import *
from tests.standin.lmstudio.models.model import StandInModel

ROOT = Path(__file__).parent

class Slow(FakeEngine):
    def load(self, model, context_length, progress):
        if context_length == 1024:  # until it has been displayed
            progress(0.45)
            while not (ROOT / "go").exists():
                time.sleep(0.01)
        return super().load(model, context_length, progress)

def pytest_lmstrix_engines(config):
    return [Slow((StandInModel(key="tiny"), StandInModel(key=%r, behaviours=(Corrupted(),))))]
"""
PATIENCE = 60.0


class Terminal:
    """Runs a program in a terminal emulator, and returns the screen."""

    def __init__(self, command: list[str], cwd: Path, columns: int, **environment: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.screen = pyte.Screen(columns, 60)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
        unset = ("COLUMNS", "LINES", "NO_COLOR", "CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave,
            env=env | {"TERM": "xterm", **environment},
        )  # fmt: skip
        os.close(slave)

    def read_until(self, seen: Callable[[], bool]) -> None:
        import select

        give_up = time.monotonic() + PATIENCE
        while not seen():
            assert time.monotonic() < give_up, self.text
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # on Linux: the other end is closed
                data = b""
            if not data:
                self.process.wait(PATIENCE)
                return
            self.raw += data
            self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def write(self, data: bytes) -> None:
        os.write(self._master, data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


Run = Callable[..., Terminal]


@pytest.fixture
def run(project: Project) -> Iterator[Run]:
    """Runs pytest on a terminal of given width until it reaches the slow load."""
    project.pytester.makeconftest(CONFTEST % LONG)
    project.manifest(f"[{{id: tiny, contexts: [512, 1024]}}, {{id: {LONG}, contexts: [512]}}]")
    started: list[Terminal] = []

    def start(columns: int, *args: str, **environment: str) -> Terminal:
        command = [sys.executable, "-m", "pytest", "--lmstrix", "-p", "no:cacheprovider", *args]
        terminal = Terminal(command, project.path, columns, **environment)
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


def finish(terminal: Terminal, project: Project) -> None:
    (project.path / "go").touch()
    terminal.read_until(lambda: False)
    assert terminal.process.returncode == 0, terminal.text


WAYS: list[tuple[int, tuple[str, ...]]] = [(60, ()), (80, ("-v",)), (80, ("-n", "2"))]
MORE_WAYS: list[tuple[int, tuple[str, ...]]] = [
    (60, ("-v",)), (80, ("-q",)), (80, ("--no-header",)), (200, ()), (200, ("-v", "-n", "2")),
]  # fmt: skip


def params(ways: list[tuple[int, tuple[str, ...]]], *marks: pytest.MarkDecorator) -> list[object]:
    return [
        pytest.param(columns, args, marks=marks, id=f"{columns}{''.join(args)}")
        for columns, args in ways
    ]


@pytest.mark.parametrize(("columns", "args"), [*params(WAYS), *params(MORE_WAYS, pytest.mark.long)])
def test_a_load_is_shown_while_running_and_erased_after(
    run: Run, project: Project, columns: int, args: tuple[str, ...]
) -> None:
    terminal = run(columns, *args)
    terminal.read_until(lambda: " of 3" in terminal.text and "loading 45%" in terminal.text)
    (status,) = (line for line in terminal.lines if "loading 45%" in line)
    assert status.startswith("tiny at 1,024 tokens  loading 45%")
    assert ("━━" in status) is (columns >= 100)
    finish(terminal, project)
    for word in ("loading", "prefilled", "case "):
        assert word not in terminal.text
    assert "\x1b" not in terminal.text
    heading = next(n for n, line in enumerate(terminal.lines) if line.startswith("model "))
    assert "verdict" in terminal.lines[heading]
    tiny = next(line for line in terminal.lines[heading:] if line.startswith("tiny"))
    bad = next(line for line in terminal.lines[heading:] if line.startswith("a-model"))
    assert " ok" in tiny
    assert " corrupted" in bad


def test_the_status_does_not_change_dots_and_results(run: Run, project: Project) -> None:
    terminal = run(80)
    terminal.read_until(lambda: "case " in terminal.text)
    at = next(n for n, line in enumerate(terminal.lines) if line.startswith("models.yaml ."))
    assert terminal.screen.cursor.y == at
    assert terminal.screen.cursor.x == len(terminal.lines[at])
    assert "loading 45%" in terminal.lines[at + 1]
    assert terminal.lines[at + 2].startswith(("case 2 of 3", "case 3 of 3"))
    finish(terminal, project)
    (line,) = [line for line in terminal.lines if line.startswith("models.yaml")]
    assert sorted(line.split()[1]) == [".", ".", "x"]
    assert line.endswith("[100%]")


def test_no_color_disables_colours(run: Run, project: Project) -> None:
    terminal = run(80, NO_COLOR="1")
    finish(terminal, project)
    assert re.search(rb"\x1b\[[0-9;]*m", terminal.raw) is None


@pytest.mark.parametrize(
    ("args", "environment"),
    [
        (("-s",), {}),
        (("--capture=tee-sys",), {}),
        (("--log-cli-level=INFO",), {}),
        (("-p", "no:terminal"), {}),
        ((), {"TERM": "dumb"}),
    ],
    ids=["-s", "tee-sys", "log-cli", "no-terminal", "dumb"],
)
def test_the_status_is_not_redrawn_without_a_plain_terminal(
    run: Run, project: Project, args: tuple[str, ...], environment: dict[str, str]
) -> None:
    terminal = run(80, *args, **environment)
    finish(terminal, project)
    assert b"\x1b7" not in terminal.raw
    assert "loading" not in terminal.text


def test_the_status_pauses_for_a_debugger(run: Run, project: Project) -> None:
    project.pytester.makepyfile("def test_own(lmstrix_model): breakpoint()")
    terminal = run(80, "-k", "test_own and 1024 and tiny", COLUMNS="0")
    terminal.read_until(lambda: "case " in terminal.text)
    (project.path / "go").touch()
    terminal.read_until(lambda: "(Pdb)" in terminal.text)
    terminal.write(b"__import__('time').sleep(3 * 0.2) or 6 * 7\n")  # long enough for a redraw
    terminal.read_until(lambda: "42" in terminal.text)
    _, _, debugged = terminal.raw.partition(b"(Pdb)")
    assert b"\x1b7" not in debugged
    assert "case " not in terminal.text
    terminal.write(b"c\n")
    finish(terminal, project)


def test_remaining_time_is_estimated_from_earlier_runs(run: Run, project: Project) -> None:
    finish(run(200), project)
    (project.path / "go").unlink()
    terminal = run(200, "--all", "-k", "tiny-1024")  # the first test, so no other gives an estimate
    terminal.read_until(lambda: "case 1 of 1, about " in terminal.text)
    finish(terminal, project)
