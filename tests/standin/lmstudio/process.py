"""A server in a separate process, for tests that kill it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from tests.standin.lmstudio.calls import CallLog
from tests.standin.lmstudio.config import ServerConfig

Command = Literal[
    "release", "freeze", "thaw", "drop_connections", "restart", "go_away", "come_back"
]
_PROJECT = Path(__file__).parents[3]


class LmStudioProcess:
    """Runs the server of `config` inside `with`; its files are in `folder`."""

    def __init__(self, config: ServerConfig, folder: Path) -> None:
        self._log_path = folder / "calls.jsonl"
        self._config_path = folder / "server.json"
        msgspec.structs.replace(config, log_path=str(self._log_path)).write(self._config_path)
        self._killed = False
        self._process: subprocess.Popen[str] | None = None
        self.host = ""

    def __enter__(self) -> Self:
        self._log_path.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.standin.lmstudio", str(self._config_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_PROJECT,
            env=os.environ | {"PYTHONPATH": str(_PROJECT)},
        )
        self.host = self._line()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        with self._process:
            if self._process.stdin:
                self._process.stdin.close()
            status = self._process.wait()
        if status != 0 and error is None and not self._killed:
            raise RuntimeError(f"the stand-in LM Studio ended with status {status}")

    def send(self, command: Command) -> None:
        """Send `command` to the server, and return once it is done."""
        assert self._process is not None
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        assert self._line() == "done"

    def kill(self) -> None:
        """Kill the process without cleanup."""
        assert self._process is not None
        self._killed = True
        self._process.kill()
        self._process.wait()

    def log(self) -> CallLog:
        """Return the call log so far."""
        return CallLog.read(self._log_path)

    def _line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the stand-in LM Studio has ended")
        return line
