"""The configuration of a server process as a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from tests.standin.lmstudio.faults import Fault
from tests.standin.lmstudio.models.model import StandInModel, UserInstance
from tests.standin.lmstudio.server import LmStudioServer


class ServerConfig(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The arguments of `LmStudioServer`."""

    models: tuple[StandInModel, ...] = ()
    loaded: tuple[UserInstance, ...] = ()
    faults: tuple[Fault, ...] = ()
    memory_bytes: int | None = None
    guardrail: bool = True
    api_tokens: tuple[str, ...] = ()
    estimates: bool = False
    version: str = "0.3.30"
    port: int = 0
    home: str | None = None
    """LM Studio's home folder, where the settings of each model are."""
    log_path: str | None = None
    """The call log is appended to this file as JSON Lines."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the configuration from the JSON file at `path`."""
        # Unlike msgspec, json reads lone surrogates, which model output may contain.
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), cls)

    def write(self, path: Path) -> None:
        """Write it to the JSON file at `path`."""
        path.write_text(json.dumps(msgspec.to_builtins(self)), encoding="utf-8")

    def server(self) -> LmStudioServer:
        """Return the server, not started."""
        arguments = msgspec.structs.asdict(self)
        for name in ("home", "log_path"):
            arguments[name] = Path(arguments[name]) if arguments[name] else None
        return LmStudioServer(**arguments)
