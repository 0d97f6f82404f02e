"""The user's own `llama-server`: where it is, its version, the flags and the devices it knows."""

from __future__ import annotations

import os
import queue
import re
import shutil
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import Device
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import NO_ENGINE
from pytest_lmstrix.system.child_process import Child, describe_exit
from pytest_lmstrix.weights.source import with_home

NAME = "llama-server"
QUERY_SECONDS = 60.0
"""Time limit for its version or help: a GPU may take long to start."""
_MOST_LINES = 5_000
_VERSION = re.compile(r"^version: +(.+)$", re.M)
_BUILD = re.compile(r"\(build (\d+), commit (\w+)\)|(\d+) \((\w+)\)")
_FLAGS = re.compile(r"^(--?[A-Za-z][\w.-]*(?:,\s+--?[A-Za-z][\w.-]*)*)(.*)$", re.M)
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.M)
_MIB = 1024 * 1024
_REQUIRED = ("--model", "--ctx-size", "--parallel", "--host", "--port")
_WORDS = 300
"""Characters quoted of what a wrong program prints."""


class Flag(Struct, frozen=True):
    """A flag of the program's help."""

    names: tuple[str, ...]
    takes_value: bool


class Binary:
    """A `llama-server` on this machine, asked at most once for each of its properties."""

    def __init__(self, setting: str | None, *, query_seconds: float = QUERY_SECONDS) -> None:
        """`setting` is its path or its name on PATH; by default `llama-server` on PATH."""
        self._setting = setting
        self._query_seconds = query_seconds

    @cached_property
    def path(self) -> Path:
        """The program.

        Raises:
            Failure: There is none.
        """
        wanted = with_home(self._setting or NAME)
        if wanted.name != str(wanted):
            if wanted.is_file():
                return wanted
            raise unusable(f"lmstrix_llama_server: {wanted} does not exist")
        found = shutil.which(str(wanted))
        if found is None:
            raise unusable(
                f"no {wanted} on PATH: put it there, or set lmstrix_llama_server to its path"
            )
        return Path(found)

    @cached_property
    def version(self) -> str:
        """Build and commit, such as `b6123-0f1d2c3`.

        Raises:
            Failure: The program is not llama.cpp's server, or does not run.
        """
        text = self._ask("--version")
        found = _VERSION.search(text)
        if found is None:
            raise unusable(f"{self.path} is not llama.cpp's server: {_quoted('--version', text)}")
        build = _BUILD.search(found[1])
        if build is None or build[1] == "0":  # built outside of a checkout, which has no number
            return found[1].partition(" (")[0].strip()
        number, commit = (group for group in build.groups() if group is not None)
        return f"b{number}-{commit}"

    @cached_property
    def flags(self) -> Mapping[str, Flag]:
        """Every spelling of every flag that it knows.

        Raises:
            Failure: The program is not llama.cpp's server, or does not run.
        """
        assert self.version
        text = self._ask("--help")
        flags: dict[str, Flag] = {}
        for line in _FLAGS.finditer(text):
            names = tuple(re.split(r",\s+", line[1]))
            # A value is one space away from its flag, the description more.
            flag = Flag(names, takes_value=bool(re.match(r" [^ ]", line[2])))
            flags.update(dict.fromkeys(names, flag))
        missing = [flag for flag in _REQUIRED if flag not in flags]
        if missing:
            words = _quoted("--help", text)
            raise unusable(f"{self.path} has no {', '.join(missing)}: {words}")
        return flags

    @cached_property
    def devices(self) -> Mapping[str, str] | None:
        """The devices besides the processor, such as `CUDA0` -> its name; `None` if unknown."""
        if "--list-devices" not in self.flags:
            return None
        return {name: title for name, title, *_ in self._listed_devices()}

    def read_devices(self) -> tuple[Device, ...]:
        """Return the devices besides the processor with their memory as of now.

        Raises:
            Failure: The program does not run.
        """
        if "--list-devices" not in self.flags:
            return ()
        return tuple(
            Device(
                name=name,
                total_bytes=int(total) * _MIB,
                free_bytes=int(free) * _MIB,
                shares_host_memory=sys.platform == "darwin",
            )
            for name, _, total, free in self._listed_devices()
        )

    def _listed_devices(self) -> list[tuple[str, str, str, str]]:
        return _DEVICE.findall(self._ask("--list-devices"))

    def _ask(self, flag: str) -> str:
        try:
            child = Child([str(self.path), flag], b"", environment=environment())
        except OSError as error:
            raise unusable(f"{self.path} cannot be started: {error.strerror or error}") from error
        lines: list[str] = []
        deadline = time.monotonic() + self._query_seconds
        try:
            while (line := self._next_line(child, flag, deadline)) is not None:
                lines.append(line.decode(errors="replace").rstrip())
                if len(lines) >= _MOST_LINES:
                    words = _quoted(flag, "\n".join(lines[:9]))
                    raise unusable(f"{self.path} is not llama.cpp's server: {words}")
            status = child.wait(max(0.0, deadline - time.monotonic()))
        finally:
            child.end(patience_seconds=0.0)
        text = "\n".join([*lines, *child.log()])
        if status:
            ending = describe_exit(status)
            raise unusable(f"{self.path} {flag} ended with {ending}: {_quoted(flag, text)}")
        return text

    def _next_line(self, child: Child, flag: str, deadline: float) -> bytes | None:
        try:
            return child.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            seconds = f"{self._query_seconds:g} s"
            raise unusable(f"{self.path} {flag} does not answer within {seconds}") from None


def environment(**more: str) -> dict[str, str]:
    """Return the environment for the program, without its variables that change its settings."""
    kept = {name: value for name, value in os.environ.items() if not _sets_arguments(name)}
    return {**kept, **more}


def _sets_arguments(name: str) -> bool:
    return name.upper().startswith("LLAMA_ARG_") or name.upper() == "LLAMA_API_KEY"


def unusable(text: str) -> Failure:
    """Return the error for a program that cannot be used, whatever the model."""
    return Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", code=NO_ENGINE, final=True)


def _quoted(flag: str, text: str) -> str:
    words = " ".join(clean(text, _WORDS * 4).split())[:_WORDS]
    return f"{flag} prints {words!r}" if words else f"{flag} prints nothing"
