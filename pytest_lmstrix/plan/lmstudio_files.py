"""The files of LM Studio's models on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import Engines
from pytest_lmstrix.weights.source import LOOPBACK


class LmStudioFiles:
    """LM Studio's listing, asked once; its paths are looked up in its folders here."""

    def __init__(self, hosts: Sequence[str], folders: Iterable[Path]) -> None:
        """`hosts` may be empty for LM Studio's own discovery."""
        self._hosts = hosts or ("",)
        self._folders = tuple(folders)
        self._listed: dict[str, ModelFacts] = {}
        self._reason = "LM Studio does not list it"

    def ask(self) -> None:
        """Ask the hosts on this machine for their models; an error becomes the reason."""
        for host in self._hosts:
            if host and not _is_here(host):
                self._reason = f"not reported: {host} is another machine"
                continue
            with closing(Engines()) as engines:
                try:
                    models = engines.get("lmstudio", [host] if host else ()).models()
                except (Failure, ImportError, OSError) as error:
                    text = error.text if isinstance(error, Failure) else str(error)
                    self._reason = f"not reported: {text}"
                else:
                    self._listed |= {facts.id: facts for facts in models}

    def find(self, model_id: str) -> Path:
        """Return the file of a model.

        Raises:
            Failure: It is not a GGUF file on this machine.
        """
        facts = self._listed.get(model_id)
        if facts is None:
            raise _not_found(self._reason)
        found = [
            path for folder in self._folders if (path := folder / (facts.path or "")).is_file()
        ]
        if not found or found[0].suffix.lower() != ".gguf":
            raise _not_found("not reported: no GGUF file of it on this machine")
        return found[0]


def _is_here(host: str) -> bool:
    return re.sub(r"^http://|:\d+$", "", host).strip("[]") in LOOPBACK


def _not_found(text: str) -> Failure:
    return Failure(text, verdict=Verdict.MODEL_NOT_FOUND, phase="load")
