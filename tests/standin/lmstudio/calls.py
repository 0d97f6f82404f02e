"""The calls of a server and their outcomes; readable while it runs and from its log file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="call"):
    """A call, numbered in the order of arrival; `outcome` is `pending` until it is answered."""

    number: int
    time: float
    """Seconds on the server's clock."""
    namespace: str
    endpoint: str
    identifier: str | None = None
    model_key: str | None = None
    ttl_ms: int | None = None
    device: str = ""
    """The linked device that a load names, or `this`."""
    context_length: int | None = None
    """The context length that a load requests."""
    granted_context_length: int | None = None
    config: dict[str, Any] = {}
    """Load or prediction settings, by the keys of LM Studio."""
    prompt_tokens: int | None = None
    """Prompt tokens as sent."""
    cached_tokens: int | None = None
    """Prompt tokens in the cache of the instance."""
    prompt_tail: str = ""
    """The last 200 characters of the prompt."""
    cancelled: bool = False
    """Whether the client has cancelled."""
    outcome: str = "pending"
    """`ok`, `cancelled`, `invalid`, `lost`, or `error: TITLE`."""
    seconds: float = 0.0
    """From its arrival to its outcome."""


class Change(Struct, frozen=True, kw_only=True, tag="change"):
    """An instance that was loaded or unloaded, and why."""

    time: float
    identifier: str
    model_key: str
    context_length: int
    loaded: bool
    why: Literal["load", "user", "unload", "ttl", "crash", "restart"]


class Violation(Struct, frozen=True, kw_only=True, tag="violation"):
    """A message that breaks the protocol."""

    time: float
    namespace: str
    problem: str


Record = Call | Change | Violation


class CallLog:
    """The log of calls, and queries on it for tests."""

    def __init__(self, path: Path | None = None) -> None:
        self.calls: list[Call] = []
        self.changes: list[Change] = []
        self.violations: list[Violation] = []
        self._path = path
        self._changed = threading.Condition()

    @classmethod
    def read(cls, path: Path) -> CallLog:
        """Read the log that a server has written to `path`; a torn last line is omitted."""
        log = cls()
        for line in path.read_bytes().split(b"\n")[:-1]:
            log.record(msgspec.convert(json.loads(line), Record))
        return log

    def record(self, entry: Record) -> None:
        """Add `entry`; a call with a known number replaces its earlier state."""
        with self._changed:
            match entry:
                case Change():
                    self.changes.append(entry)
                case Violation():
                    self.violations.append(entry)
                case Call() if entry.number < len(self.calls):
                    self.calls[entry.number] = entry
                case Call():
                    self.calls.append(entry)
            self._changed.notify_all()
        if self._path:
            # Unlike msgspec, json escapes lone surrogates, which prompts may hold.
            with self._path.open("a", encoding="ascii", newline="\n") as file:
                file.write(json.dumps(msgspec.to_builtins(entry)) + "\n")

    def nudge(self) -> None:
        """Have `wait_for` check again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Return once `condition` holds; it is checked after every event.

        Raises:
            TimeoutError: It does not hold within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"not within {timeout} s; the last calls: {self.calls[-5:]}")

    def named(self, endpoint: str) -> list[Call]:
        """All calls of `endpoint`."""
        return [call for call in self.calls if call.endpoint == endpoint]

    def loads(self) -> list[Call]:
        """All calls that load."""
        return [call for call in self.calls if call.endpoint in ("loadModel", "getOrLoad")]

    def unloads(self) -> list[Call]:
        """All calls that unload."""
        return self.named("unloadModel")

    def predictions(self) -> list[Call]:
        """All predictions."""
        return self.named("predict")

    def pending(self, endpoint: str) -> list[Call]:
        """Pending calls of `endpoint`."""
        return [call for call in self.named(endpoint) if call.outcome == "pending"]

    def fresh_tokens(self) -> int:
        """Prompt tokens processed without the cache, over all predictions."""
        return sum((c.prompt_tokens or 0) - (c.cached_tokens or 0) for c in self.predictions())

    def loaded(self) -> tuple[str, ...]:
        """Identifiers of loaded instances, in load order."""
        return tuple(_fold(self.changes))

    def ever_loaded(self, prefix: str = "") -> tuple[str, ...]:
        """Identifiers with `prefix` that were loaded at any time."""
        return tuple(
            c.identifier for c in self.changes if c.loaded and c.identifier.startswith(prefix)
        )

    def max_loaded_at_once(self, prefix: str = "") -> int:
        """The maximum number of instances with `prefix` in memory at the same time."""
        now = most = 0
        for change in self.changes:
            if change.identifier.startswith(prefix):
                now += 1 if change.loaded else -1
                most = max(most, now)
        return most


def _fold(changes: Iterable[Change]) -> dict[str, Change]:
    loaded: dict[str, Change] = {}
    for change in changes:
        if change.loaded:
            loaded[change.identifier] = change
        else:
            loaded.pop(change.identifier, None)
    return loaded
