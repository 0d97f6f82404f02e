"""Troubles that are scripted: where, what and how often."""

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
    """Something goes wrong at `where`, `times` times.

    - `error`: the call is answered with `error`
    - `hang`: silence until `LmStudioServer.release()`; then it goes on as if nothing had been
    - `slow`: `seconds` pass, then it goes on
    - `close_channel`: the channel is closed without a result; an RPC is never answered
    - `close_socket`: the connection breaks; a load goes on without it
    - `garbage`: `text` is sent as a frame of its own, then it goes on
    - `crash`: the engine dies with `exit_code`, and the instance with it
    - `restart`: every connection and instance is gone; the server is there again at once
    - `gone`: the same, and the port stays closed
    - `ignore`: answered as if it were done, and not done (`unloadModel`)
    - `repeat`: the same is told every `seconds` until the client gives up (`load_progress`,
      `prefill`, `fragment`)
    """

    where: Where
    kind: Kind
    times: int = 1
    skip: int = 0
    """Occasions that pass unharmed first."""
    after: float = 0.0
    """Fraction of the load or prefill, or number of fragments, before which it does not happen."""
    model: str = ""
    """Only for models whose key begins so."""
    error: ServerError = ServerError()
    seconds: float = 0.0
    exit_code: int | None = 6
    text: str = "{"


@dataclass
class _Pending:
    fault: Fault
    skip: int
    times: int


class FaultBook:
    """The faults that are still to happen."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._pending: list[_Pending] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Script one more."""
        self._pending.append(_Pending(fault, fault.skip, fault.times))

    def left(self) -> tuple[Fault, ...]:
        """Those that have not happened as often as they should."""
        return tuple(entry.fault for entry in self._pending if entry.times > 0)

    def take(self, where: Where, model: str, progress: float) -> Fault | None:
        """The fault that happens on this occasion."""
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
