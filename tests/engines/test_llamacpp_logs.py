"""The logs of failed servers of llama.cpp: bounded, and named only where they exist."""

from __future__ import annotations

from pathlib import Path

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.logs import MOST_LOG_BYTES, MOST_LOGS, ServerLogs


def failure() -> Failure:
    return Failure("llama.cpp ended", verdict=Verdict.CRASHED, phase="load")


def test_the_newest_logs_are_kept_and_other_files_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.log"
    other.write_text("mine", encoding="utf-8")
    named = []
    for number in range(MOST_LOGS + 5):
        kept = ServerLogs(tmp_path).keep(failure(), [f"load {number}"], f"org/name{number}-4096")
        named.append(Path(kept.text.rpartition("\nlog: ")[2]))
    assert sorted(tmp_path.glob("llamacpp-*")) == named[5:]
    assert [path.read_text(encoding="utf-8") for path in named[-2:]] == ["load 23\n", "load 24\n"]
    assert other.read_text(encoding="utf-8") == "mine"


def test_of_a_long_log_the_end_is_kept_without_terminal_escapes(tmp_path: Path) -> None:
    ServerLogs(tmp_path).keep(failure(), ["x" * 4_000] * 100 + ["\x1b[31mthe cause\x1b[0m"], "m")
    [path] = tmp_path.iterdir()
    data = path.read_bytes()
    assert len(data) == MOST_LOG_BYTES
    assert data.endswith(b"x\nthe cause\n")


def test_no_log_is_named_where_none_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for logs, log in (
        (ServerLogs(None), ["line"]),
        (ServerLogs(tmp_path / "logs"), []),
        (ServerLogs(file), ["line"]),
    ):
        assert logs.keep(failure(), log, "m").text == "llama.cpp ended"
    assert list(tmp_path.iterdir()) == [file]
