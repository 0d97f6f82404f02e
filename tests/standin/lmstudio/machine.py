"""The computer that LM Studio runs on: models on disk, instances in memory, time-to-live."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

from lmstudio._sdk_models import ModelSpecifierInstanceReference, ModelSpecifierQuery

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.calls import CallLog, Change
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.behaviours import Load, MissingFromDisk
from tests.standin.lmstudio.models.minds import Mind, StandInMind
from tests.standin.lmstudio.models.model import StandInModel, UserInstance

Why = Literal["load", "user", "unload", "ttl", "crash", "restart"]
Specifier = ModelSpecifierQuery | ModelSpecifierInstanceReference


class Instance:
    """A model in memory."""

    def __init__(
        self,
        model: StandInModel,
        identifier: str,
        mind: Mind,
        *,
        reference: str,
        ttl_ms: int | None,
        now: float,
        config: dict[str, Any],
    ) -> None:
        self.model = model
        self.identifier = identifier
        self.mind = mind
        self.reference = reference
        self.ttl_ms = ttl_ms
        self.last_used = now
        self.config = config
        self.turn = asyncio.Semaphore(config.get("llm.load.numParallelSessions", 1))
        """Held by a prediction: those of one slot run one after the other."""
        self.running: set[asyncio.Task[None]] = set()
        """Number of running and waiting predictions."""

    def expired(self, now: float) -> bool:
        """Whether it has been idle for longer than its TTL."""
        if self.ttl_ms is None or self.running:
            return False
        return now - self.last_used > self.ttl_ms / 1000

    def info(self) -> dict[str, Any]:
        """Return its entry in a listing."""
        return self.model.info() | {
            "identifier": self.identifier,
            "instanceReference": self.reference,
            "contextLength": self.mind.context_length,
            "ttlMs": self.ttl_ms,
            "lastUsedTime": int(self.last_used * 1000),
        }


class Machine:
    """Models on disk and in memory, independent of connections."""

    def __init__(
        self,
        models: Iterable[StandInModel],
        log: CallLog,
        *,
        memory_bytes: int | None,
        guardrail: bool,
        clock: Callable[[], float],
    ) -> None:
        self.listed = list(models)
        """Every model as listings have it: linked devices may have the same ones."""
        own = sorted(self.listed, key=lambda model: model.device is not None, reverse=True)
        self.models = {each.key: each for model in own for each in (*model.variants, model)}
        self.instances: dict[str, Instance] = {}
        self.clock = clock
        self.attempts: Counter[tuple[str, str]] = Counter()
        self._loading: dict[str, int] = {}
        self._log = log
        self._memory_bytes = memory_bytes
        self._guardrail = guardrail
        self._references = itertools.count(1)

    def downloaded(self, key: str, domain: str) -> StandInModel:
        """Return the model that a load names by key or path.

        Raises:
            Refused: It does not exist, or belongs to another namespace.
        """
        for model in self.models.values():
            if key in (model.key, model.file_path):
                if any(isinstance(b, MissingFromDisk) for b in model.behaviours):
                    break
                if model.type != domain:
                    raise Refused(errors.domain_mismatch(key, model.type, domain))
                return model
        raise Refused(errors.path_not_found(key, list(self.models)))

    def find(self, specifier: Specifier, domain: str) -> Instance:
        """Find an instance by its identifier, or else by its model's key or path.

        Raises:
            Refused: No loaded instance matches.
        """
        here = [i for i in self.instances.values() if i.model.type == domain]
        if isinstance(specifier, ModelSpecifierInstanceReference):
            for instance in here:
                if instance.reference == specifier.instance_reference:
                    return instance
            raise Refused(errors.model_unloaded(specifier.instance_reference))
        query = specifier.query
        if query.vision is not None:
            here = [i for i in here if i.model.vision == query.vision]
        for name in (query.identifier, query.path):
            if name is not None:
                here = [i for i in here if i.identifier == name] or [
                    i for i in here if name == i.model.key or i.model.file_path.startswith(name)
                ]
        if not here:
            raise Refused(errors.no_matching_model(dict(query.to_dict()), list(self.instances)))
        return here[0]

    def reserve(self, model: StandInModel, identifier: str | None, asked: int) -> str:
        """Reserve memory and a free identifier for a load.

        Raises:
            Refused: The identifier is in use, or the model or the memory refuses the load.
        """
        in_use = self.instances.keys() | self._loading.keys()
        if identifier is None:
            names = itertools.chain([model.key], (f"{model.key}:{n}" for n in itertools.count(2)))
            identifier = next(name for name in names if name not in in_use)
        elif identifier in in_use:
            raise Refused(errors.already_exists(identifier))
        needed = model.needed_bytes(asked)
        self.attempts[model.key, "load"] += 1
        load = Load(
            context_length=asked,
            needed_bytes=needed,
            attempt=self.attempts[model.key, "load"],
        )
        for behaviour in model.behaviours:
            behaviour.check_load(load)
        if not self.fits(needed):
            refusal = errors.guardrail if self._guardrail else errors.cannot_allocate
            raise Refused(refusal(needed))
        self._loading[identifier] = needed
        return identifier

    def fitting(self, model: StandInModel, asked: int) -> int:
        """The context that a load is fitted to: all of MLX's, what memory allows of llama.cpp's."""
        if model.format != "gguf":
            return model.max_context_length
        smaller = (n for n in range(asked, 0, -256) if self.fits(model.needed_bytes(n)))
        return next(smaller, asked)

    def fits(self, needed_bytes: int) -> bool:
        """Whether this much more memory is available."""
        used = sum(self._loading.values()) + sum(
            i.model.needed_bytes(i.mind.context_length) for i in self.instances.values()
        )
        return self._memory_bytes is None or used + needed_bytes <= self._memory_bytes

    def release(self, identifier: str) -> None:
        """Undo `reserve`."""
        self._loading.pop(identifier, None)

    def add(
        self,
        model: StandInModel,
        identifier: str,
        mind: Mind,
        *,
        ttl_ms: int | None,
        config: dict[str, Any],
        why: Literal["load", "user"] = "load",
    ) -> Instance:
        """Add an instance."""
        self.release(identifier)
        instance = Instance(
            model,
            identifier,
            mind,
            reference=f"ref-{next(self._references)}",
            ttl_ms=ttl_ms,
            now=self.clock(),
            config=config,
        )
        self.instances[identifier] = instance
        self._note(instance, why, loaded=True)
        return instance

    def add_users(self, loaded: UserInstance) -> Instance:
        """Load an instance for the user, without checks."""
        model = self.models[loaded.key]
        mind = StandInMind(model, loaded.context_length)
        identifier = loaded.identifier or loaded.key
        return self.add(model, identifier, mind, ttl_ms=None, config={}, why="user")

    def remove(self, instance: Instance, why: Why) -> None:
        """Remove an instance; its predictions end."""
        if self.instances.pop(instance.identifier, None) is None:
            return
        self._note(instance, why, loaded=False)
        for task in instance.running:
            task.cancel()
        instance.mind.close()

    def expire(self) -> None:
        """Remove instances whose TTL has expired."""
        now = self.clock()
        for instance in list(self.instances.values()):
            if instance.expired(now):
                self.remove(instance, "ttl")

    def clear(self, why: Why) -> None:
        """Remove all instances."""
        self._loading.clear()
        for instance in list(self.instances.values()):
            self.remove(instance, why)

    def _note(self, instance: Instance, why: Why, *, loaded: bool) -> None:
        self._log.record(
            Change(
                time=self.clock(),
                identifier=instance.identifier,
                model_key=instance.model.key,
                context_length=instance.mind.context_length,
                loaded=loaded,
                why=why,
            )
        )
