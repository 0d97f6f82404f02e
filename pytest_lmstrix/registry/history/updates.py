"""Changes of an engine's version between the runs on one machine. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.system.addresses import remote_host

SOFTWARE = {"llamacpp": "llama.cpp", "lmstudio": "LM Studio", "ollama": "Ollama"}
"""Engine -> the name of its software."""


class EngineUpdate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine has another version than in the newest earlier run."""

    engine: str
    host: str | None = None
    """A remote host; `None` for the machine itself."""
    before: str
    after: str
    last_used: datetime
    """The newest result with the version before."""


class EngineVersions:
    """The newest version of each engine on each machine and remote host; added oldest first."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str | None, str | None], tuple[str, datetime]] = {}

    def add(self, result: Result) -> None:
        """Note the version of an earlier result."""
        if result.engine_version and not result.imported:
            self._newest[_place(result)] = result.engine_version, result.at

    def updates(self, now: Iterable[Result]) -> tuple[EngineUpdate, ...]:
        """Return how the versions of the results `now` differ from the earlier ones."""
        current = {_place(result): result.engine_version for result in now if result.engine_version}
        found = []
        for place, version in current.items():
            before, last_used = self._newest.get(place, (version, None))
            if last_used is not None and before != version:
                engine, place_host, _ = place
                host = place_host if place_host != engine else None
                found.append(
                    EngineUpdate(
                        engine=engine, host=host, before=before, after=version, last_used=last_used
                    )
                )
        return tuple(found)


def update_text(update: EngineUpdate) -> str:
    """Return `llama.cpp updated from 0.2.8 to 0.2.9`, with the host if it is remote."""
    name = SOFTWARE.get(update.engine, update.engine)
    if update.host is not None:
        name += f" on {update.host}"
    older = _numbers(update.after) < _numbers(update.before)
    verb = "went back" if older else "updated"
    return f"{name} {verb} from {update.before} to {update.after}"


def _place(result: Result) -> tuple[str, str | None, str | None]:
    return result.engine, remote_host(result.host), result.machine


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,18}", version)]
