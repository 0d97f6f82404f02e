"""Faults of real processes: killed, stopped, out of memory, or with a broken file."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import engine as llamacpp
from pytest_lmstrix.system.child_process import Child
from tests.end_to_end.faults.conftest import verdicts
from tests.end_to_end.project import Project
from tests.standin.weights import smollm2

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
SILENCE_SECONDS = 6.0
UNHARMED = ""


class Doomed(Child):
    """A child with a fate from `fates`: `MOMENT SIGNAL`, a `SHELL COMMAND` before it starts, or
    nothing. Fates go by context length, so that an extra retry takes no other model's.

    `load` is while it loads, `reply` while it owes an answer to a prompt.
    """

    fates: dict[int, list[str]]
    all: list[Doomed]

    def __init__(self, command: Sequence[str], first_line: bytes) -> None:
        left = self.fates.get(json.loads(first_line)["context_length"], [])
        self._fate = left.pop(0) if left else UNHARMED
        self._requests = 0
        if self._fate.startswith(("ulimit", "echo")):
            command = ["sh", "-c", f'{self._fate}; exec "$@"', "sh", *command]
        super().__init__(command, first_line)
        self.all.append(self)
        if self._fate.startswith("load"):
            threading.Thread(target=self._meet_load, daemon=True).start()

    def _meet_load(self) -> None:
        """As soon as the supervisor has started the server, which takes longer to load."""
        while len(self._find_tree()) == 1:
            time.sleep(0.005)
        self._meet("load")

    def forget_log(self) -> None:
        super().forget_log()
        self._requests += 1
        if self._requests > 1:  # a request for properties precedes all prompts
            self._meet("reply")

    def processes(self) -> list[psutil.Process]:
        return self._find_tree()

    def _meet(self, moment: str) -> None:
        now, _, name = self._fate.partition(" ")
        if now == moment:
            self._fate = UNHARMED
            for process in self._find_tree():
                process.send_signal(signal.Signals[name])


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group limited to 120 MB; members that exceed it are killed."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    group = root / ("memory" if version_1 else "") / f"lmstrix-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        limit = group / ("memory.limit_in_bytes" if version_1 else "memory.max")
        try:
            limit.write_text("120000000", encoding="ascii")
        except OSError as error:
            pytest.skip(f"memory is not controlled: {error}")
        yield group
    finally:
        group.rmdir()


@pytest.fixture
def doomed(monkeypatch: pytest.MonkeyPatch) -> type[Doomed]:
    """Replaces the servers that the engine starts; set its `fates`."""
    monkeypatch.setattr(Doomed, "fates", {}, raising=False)
    monkeypatch.setattr(Doomed, "all", [], raising=False)
    monkeypatch.setattr(llamacpp, "Child", Doomed)
    return Doomed


def run(project: Project, tier: str, **sources: tuple[Path, int]) -> pytest.RunResult:
    """Run models in this order, given as name -> file and context length."""
    entries = ", ".join(
        f"{{id: {name}, engine: llamacpp, source: '{path.as_posix()}', contexts: [{size}],"
        f" context_limit: {size}, size_bytes: {at * 10**12}, load: {{threads: 1}}}}"
        for at, (name, (path, size)) in enumerate(sources.items(), 1)
    )
    project.pytester.makefile(".yaml", models=f"models: [{entries}]\n")
    limits = [f"--lmstrix-{each}-timeout={SILENCE_SECONDS}" for each in ("load", "reply")]
    return project.run("--lmstrix", "--all", "-m", tier, *limits)


FATES: dict[str, tuple[list[str], tuple[Verdict, bool]]] = {
    "killed-once-loading": (["load SIGKILL", UNHARMED], (Verdict.OK, True)),
    "killed-once-asked": (["reply SIGKILL", UNHARMED], (Verdict.OK, True)),
    "stopped-once-loading": (["load SIGSTOP", UNHARMED], (Verdict.OK, True)),
    "stopped-once-asked": (["reply SIGSTOP", UNHARMED], (Verdict.OK, True)),
    "killed-loading": (["load SIGKILL", "load SIGKILL"], (Verdict.CRASHED, True)),
    "killed-asked": (["reply SIGKILL", "reply SIGABRT"], (Verdict.CRASHED, True)),
    "stopped-asked": (["load SIGSTOP", "reply SIGSTOP"], (Verdict.TIMEOUT, True)),
    "starved": (["ulimit -v 1000000"], (Verdict.OUT_OF_MEMORY, False)),
    "cut": ([], (Verdict.CORRUPTED, False)),
    "healthy": ([UNHARMED], (Verdict.OK, False)),
}


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is alive; an unreaped zombie is dead."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def assert_nothing_runs(doomed: type[Doomed]) -> None:
    processes = [process for child in doomed.all for process in child.processes()]
    assert len(processes) >= len(doomed.all)
    assert [each for each in processes if is_alive(each)] == []


@pytest.mark.long
def test_server_faults_affect_only_their_model(project: Project, doomed: type[Doomed]) -> None:
    cut = project.path / "cut.gguf"
    cut.write_bytes(smollm2().read_bytes()[:50_000_000])
    sizes = {name: 512 + 256 * place for place, name in enumerate(FATES)} | {"starved": 65_536}
    doomed.fates = {sizes[name]: list(fates) for name, (fates, _) in FATES.items()}
    models = {name: (cut if name == "cut" else smollm2(), sizes[name]) for name in FATES}
    result = run(project, "full", **models)
    assert verdicts(project.results) == {name: verdict for name, (_, verdict) in FATES.items()}
    result.assert_outcomes(passed=5, failed=4, xfailed=1)
    assert not any(doomed.fates.values())
    assert_nothing_runs(doomed)


def test_the_fast_check_is_retried(project: Project, doomed: type[Doomed]) -> None:
    doomed.fates = {512: ["load SIGKILL"], 768: ["reply SIGKILL"]}
    models = {"loading": (smollm2(), 512), "asked": (smollm2(), 768)}
    run(project, "fast", **models).assert_outcomes(passed=2)
    assert verdicts(project.results) == dict.fromkeys(models, (Verdict.OK, True))
    assert_nothing_runs(doomed)


def test_a_server_killed_by_the_oom_killer_is_out_of_memory(
    project: Project, doomed: type[Doomed], little_memory: Path
) -> None:
    doomed.fates = {8_192: [f"echo $$ > {little_memory}/cgroup.procs"]}
    run(project, "full", hungry=(smollm2(), 8_192), healthy=(smollm2(), 512))
    assert verdicts(project.results) == {
        "hungry": (Verdict.OUT_OF_MEMORY, False),
        "healthy": (Verdict.OK, False),
    }
    assert "killed by SIGKILL" in project.results[0].detail
    assert_nothing_runs(doomed)
