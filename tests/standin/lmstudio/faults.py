"""Scripted faults: where, what and how often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from tests.standin.lmstudio.errors import ServerError

Where = Literal[
    "greeting",
    "connect",
    "load",
    "load_progress",
    "predict",
    "prefill",
    "fragment",
    "unloadModel",
    "listLoaded",
    "listDownloadedModels",
    "listDownloadedModelVariants",
    "getModelInfo",
    "countTokens",
    "tokenize",
    "applyPromptTemplate",
    "getLoadConfig",
    "estimateModelUsage",
    "version",
]
Kind = Literal[
    "error",
    "hang",
    "slow",
    "close_channel",
    "close_socket",
    "garbage",
    "crash",
    "restart",
    "gone",
    "ignore",
    "repeat",
]


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fault of this `kind` at `where`, `times` times.

    - `error`: the call is answered with `error`
    - `hang`: no answer until `LmStudioServer.release()`; then it continues normally
    - `slow`: it continues after `seconds`
    - `close_channel`: the channel is closed without a result; an RPC is never answered
    - `close_socket`: the connection breaks; a load continues without it
    - `garbage`: `text` is sent as a separate frame, then it continues
    - `crash`: the engine and its instance die with `exit_code`
    - `restart`: every connection and instance is lost; the server is back immediately
    - `gone`: as `restart`, but the port stays closed
    - `ignore`: answered with success, but not done (`unloadModel`)
    - `repeat`: the same message is sent every `seconds` until the client gives up (`load_progress`,
      `prefill`, `fragment`)
    """

    where: Where
    kind: Kind
    times: int = 1
    skip: int = 0
    """Number of matching calls that succeed first."""
    after: float = 0.0
    """Fraction of the load or prefill, or number of fragments, after which it happens."""
    model: str = ""
    """Only for models whose key has this prefix."""
    error: ServerError = ServerError()
    seconds: float = 0.0
    back: bool = False
    """What is repeated goes back and forth (`load_progress`)."""
    exit_code: int | None = 6
    text: str = "{"


@dataclass
class _Pending:
    fault: Fault
    skip: int
    times: int


class FaultBook:
    """The faults that have not happened yet."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._pending: list[_Pending] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self._pending.append(_Pending(fault, fault.skip, fault.times))

    def left(self) -> tuple[Fault, ...]:
        """Return the faults that have not happened `times` times."""
        return tuple(entry.fault for entry in self._pending if entry.times > 0)

    def take(self, where: Where, model: str, progress: float) -> Fault | None:
        """Return the fault of this call, if any."""
        for entry in self._pending:
            fault = entry.fault
            if fault.where != where or not model.startswith(fault.model):
                continue
            if progress < fault.after or entry.times <= 0:
                continue
            if entry.skip > 0:
                entry.skip -= 1
                continue
            entry.times -= 1
            return fault
        return None
