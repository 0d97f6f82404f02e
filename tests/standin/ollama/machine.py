"""The models of a stand-in Ollama, on disk and in memory: one instance each, for all clients."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import RLock
from typing import Any

from msgspec.structs import replace

from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.behaviours import Load, MissingFromDisk, Reasons
from tests.standin.lmstudio.models.embedded import load_mind
from tests.standin.lmstudio.models.minds import Mind
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.ollama.quirks import OllamaError, Quirks, load_error

DEFAULT_CONTEXT = 4096
"""The context of a request that names none."""


def tagged(name: str) -> str:
    """Return the full name of a model."""
    name = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name else f"{name}:latest"


class Resident:
    """A model in memory."""

    def __init__(self, model: StandInModel, asked: int, context_length: int) -> None:
        self.model = model
        self.asked = asked
        self.shift = True
        self.context_length = context_length
        silent = tuple(b for b in model.behaviours if not isinstance(b, Reasons))
        granted = replace(model, behaviours=silent)
        self.mind: Mind = asyncio.run(load_mind(model, context_length))
        self.silent_mind: Mind = (
            self.mind
            if silent == model.behaviours
            else asyncio.run(load_mind(granted, context_length))
        )
        self.keep_alive = 300.0
        self.used = time.time()
        self.leaves_at: float | None = None

    @property
    def expires(self) -> float:
        return self.used + self.keep_alive


class Machine:
    """Loads, lists and unloads; `events` are such as `load tiny:latest 4096`."""

    def __init__(self, models: Iterable[StandInModel], quirks: Quirks) -> None:
        self.models = {tagged(model.key): model for model in models}
        self.quirks = quirks
        self.residents: dict[str, Resident] = {}
        self.attempts: Counter[str] = Counter()
        self.events: list[str] = []
        self.lock = RLock()

    def model(self, name: str) -> StandInModel:
        """Return a model on disk.

        Raises:
            OllamaError: There is none.
        """
        model = self.models.get(tagged(name))
        if model is None or any(isinstance(b, MissingFromDisk) for b in model.behaviours):
            raise OllamaError(404, f"model '{name}' not found")
        return model

    def resident(
        self,
        name: str,
        num_ctx: int | None,
        keep_alive: float | None,
        wait: Callable[[float], None] = time.sleep,
        *,
        shift: bool = True,
    ) -> Resident:
        """Return the model in memory; load it, or load it again where its context differs.

        Since 0.30 also where it shifts its context, or no longer.

        Raises:
            OllamaError: It does not load.
        """
        model, name = self.model(name), tagged(name)
        asked = num_ctx or DEFAULT_CONTEXT
        with self.lock:
            self._expire()
            there = self.residents.get(name)
            differs = self.quirks.release >= (0, 30) and there and there.shift != shift
            if there is None or there.asked != asked or differs:
                if there is not None:
                    self.remove(name, "reload")
                there = self._load(model, name, asked, wait)
                there.shift = shift
            there.used = time.time()
            if keep_alive is not None:
                there.keep_alive = keep_alive if keep_alive >= 0 else 1e9
            return there

    def _load(
        self, model: StandInModel, name: str, asked: int, wait: Callable[[float], None]
    ) -> Resident:
        self.attempts[f"load {name}"] += 1
        wait(self.quirks.load_seconds)
        load = Load(
            context_length=asked,
            needed_bytes=model.needed_bytes(asked),
            attempt=self.attempts[f"load {name}"],
        )
        for behaviour in model.behaviours:
            try:
                behaviour.check_load(load)
            except Refused as refused:
                raise load_error(behaviour, refused) from None
        while len(self.residents) >= self.quirks.max_loaded:
            self.remove(min(self.residents, key=self._keep_alive), "evicted")
        granted = min(model.grant(asked), model.max_context_length)
        granted = granted // 2 if self.quirks.grants_half else granted
        self.residents[name] = Resident(model, asked, granted)
        self.events.append(f"load {name} {asked}")
        return self.residents[name]

    def _keep_alive(self, name: str) -> float:
        return self.residents[name].keep_alive

    def unload(self, name: str) -> None:
        """Accept to unload a model; it goes at once, or stays listed for a while."""
        with self.lock:
            there = self.residents.get(tagged(name))
            if there is not None and there.leaves_at is None:
                there.leaves_at = time.time() + self.quirks.unload_seconds
            self._expire()

    def remove(self, name: str, why: str) -> None:
        """Take a model out of memory."""
        with self.lock:
            gone = self.residents.pop(tagged(name))
            gone.mind.close()
            self.events.append(f"{why} {tagged(name)}")

    def _expire(self) -> None:
        now = time.time()
        for name, each in list(self.residents.items()):
            if each.leaves_at is not None and each.leaves_at <= now:
                self.remove(name, "unload")
            elif each.expires <= now:
                self.remove(name, "expired")

    def tags(self) -> dict[str, Any]:
        """Return the answer of `/api/tags`."""
        return {"models": [self._tag(name, model) for name, model in self.models.items()]}

    def _tag(self, name: str, model: StandInModel) -> dict[str, Any]:
        details: dict[str, Any] = {
            "format": "gguf",
            "family": "nomic-bert" if model.type == "embedding" else model.architecture,
            "parameter_size": "1B",
            "quantization_level": model.quantization,
        }
        tag = {"name": name, "model": name, "size": model.size_bytes, "digest": _digest(name),
               "details": details}  # fmt: skip
        if self.quirks.release >= (0, 30, 0):
            details["context_length"] = model.max_context_length
            tag["capabilities"] = _capabilities(model)
        return tag | model.listing

    def show(self, name: str) -> dict[str, Any]:
        """Return the answer of `/api/show`."""
        model = self.model(name)
        family = "nomic-bert" if model.type == "embedding" else model.architecture
        answer: dict[str, Any] = {
            "model_info": {
                "general.architecture": family,
                f"{family}.context_length": model.max_context_length,
            },
            "details": {"quantization_level": model.quantization},
        }
        if self.quirks.release >= (0, 6, 4):
            answer["capabilities"] = _capabilities(model)
        return answer

    def running(self) -> dict[str, Any]:
        """Return the answer of `/api/ps`."""
        with self.lock:
            self._expire()
            return {"models": [self._running(name, each) for name, each in self.residents.items()]}

    def _running(self, name: str, each: Resident) -> dict[str, Any]:
        size = each.model.needed_bytes(each.context_length)
        expires = datetime.now(UTC) + timedelta(seconds=min(each.expires - time.time(), 1e9))
        entry = {
            "name": name,
            "model": name,
            "size": size,
            "size_vram": int(size * self.quirks.vram_share),
            "digest": _digest(name),
            "expires_at": expires.isoformat(),
        }
        if self.quirks.release >= (0, 10, 0):
            asks = self.quirks.reports_asked or self.quirks.release < (0, 15, 5)
            entry["context_length"] = each.asked if asks else each.context_length
        return entry


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _capabilities(model: StandInModel) -> list[str]:
    if model.type == "embedding":
        return ["embedding"]
    has = {
        "completion": True,
        "tools": model.trained_for_tool_use,
        "vision": model.vision,
        "thinking": any(isinstance(b, Reasons) for b in model.behaviours),
    }
    return [name for name, there in has.items() if there]
