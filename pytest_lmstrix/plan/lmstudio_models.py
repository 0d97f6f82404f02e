"""The memory of LM Studio's models: their files on this machine, and LM Studio's own estimates."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Host, Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import Engines
from pytest_lmstrix.plan.hosts.placement import asked_of
from pytest_lmstrix.system.addresses import engine_at
from pytest_lmstrix.weights.source import LOOPBACK

if TYPE_CHECKING:
    from pytest_lmstrix.engines.lmstudio.usage import ModelUsage

NO_ESTIMATE = "not reported: this LM Studio does not estimate the memory of models"
_NOT_LISTED = "not reported: LM Studio does not list it"
_NO_HOST = "not reported: it asks for hosts of which this run has none"


class LmStudioModels:
    """The models that LM Studio lists, requested once; safe for use by several threads."""

    def __init__(self, hosts: Sequence[Host], folders: Iterable[Path]) -> None:
        """`hosts` are those of all engines; without one of LM Studio it finds its own.

        `folders` are where LM Studio keeps its models on this machine.
        """
        of_studio = tuple(each for each in hosts if engine_at(each.address) == "lmstudio")
        self._hosts = of_studio or (Host(address=""),)
        self._folders = tuple(folders)
        self._listed: dict[str, dict[str, ModelFacts]] = {}
        """Host -> the facts of its models by id."""
        self._reasons: dict[str, str] = {}
        """Host -> why it lists nothing."""
        self._engines = Engines()
        self._silent: set[str] = set()
        """Hosts that estimate nothing."""
        self._lock = threading.Lock()

    def request(self) -> None:
        """Request the listing of every host; an error becomes the reason."""
        for host in (each.address for each in self._hosts):
            try:
                models = self._engines.get("lmstudio", _as_hosts(host)).models()
            except (Failure, ImportError, OSError) as error:
                text = error.text if isinstance(error, Failure) else str(error)
                self._reasons[host] = f"not reported: {text}"
            else:
                self._listed[host] = {facts.id: facts for facts in models}

    def close(self) -> None:
        self._engines.close()

    def file(self, model: Model) -> Path | None:
        """Return the file of a model; `None` if it is not a GGUF file on this machine.

        Raises:
            Failure: No host lists it.
        """
        host, facts = self._find(model)
        if host and not _is_here(host):
            return None
        paths = (folder / (facts.path or "") for folder in self._folders)
        return next((path for path in paths if path.suffix.lower() == ".gguf" and path.is_file()),
                    None)  # fmt: skip

    def context_limit(self, model: Model) -> int | None:
        """Return the declared maximum that LM Studio lists.

        Raises:
            Failure: No host lists it.
        """
        return self._find(model)[1].context_limit

    def estimate(self, model: Model, context_length: int) -> ModelUsage:
        """Return LM Studio's own estimate of a load; nothing is loaded.

        Raises:
            Failure: No host lists the model, or its host does not estimate it.
        """
        from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

        host, _ = self._find(model)
        with self._lock:  # the SDK has one time limit for all threads
            if host in self._silent:
                raise _not_found(NO_ESTIMATE)
            engine = self._engines.get("lmstudio", _as_hosts(host))
            assert isinstance(engine, LmStudioEngine)
            try:
                return engine.estimate(model, context_length)
            except Failure as failure:
                if failure.verdict is not Verdict.UNREACHABLE:
                    raise
                self._silent.add(host)
                raise _not_found(NO_ESTIMATE) from failure

    def _find(self, model: Model) -> tuple[str, ModelFacts]:
        asked = [host.address for host in asked_of(model, self._hosts)]
        for host in asked:
            if facts := self._listed.get(host, {}).get(model.name):
                return host, facts
        reasons = (self._reasons[host] for host in asked if host in self._reasons)
        nowhere = _NOT_LISTED if asked else _NO_HOST
        raise _not_found(next(reasons, nowhere))


def _as_hosts(host: str) -> tuple[str, ...]:
    return (host,) if host else ()


def _is_here(host: str) -> bool:
    return re.sub(r"^http://|(:\d+)?(/.*)?$", "", host).strip("[]") in LOOPBACK


def _not_found(text: str) -> Failure:
    return Failure(text, verdict=Verdict.MODEL_NOT_FOUND, phase="load")
