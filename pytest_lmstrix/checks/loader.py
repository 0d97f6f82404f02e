"""Loads, asks and unloads models: one at a time in a process, and one at a time on a host."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Protocol

from pytest_lmstrix.checks.causes import held_by_others, may_lack_memory, similar_ids
from pytest_lmstrix.checks.granted import whole
from pytest_lmstrix.checks.requests.abilities import EngineErrors
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import NO_ENGINE, Engine, Fetches, Instance, Progress
from pytest_lmstrix.engines.catalog import attaches, host_of
from pytest_lmstrix.weights.download import WEIGHTS

RECONNECT_PAUSES = (0.0, 1.0, 3.0)
"""Seconds to wait before each attempt to reach a lost host again."""
RETURN_SECONDS = 60.0
"""Seconds after which a host that is gone is asked whether it is back."""
RECONNECT_SECONDS = 10.0
"""Stop reconnecting after this many seconds: each request to a silent host takes long."""


class Watch(Protocol):
    """Shows the progress of loads to the user."""

    def loading(self, model_id: str, context_length: int) -> Progress:
        """Show that a load begins; the returned progress also receives its prefills."""

    def waiting(self, host: str, holder: str) -> None:
        """Show that `host` cannot be used now; `holder` is the reason, such as its user."""

    def idle(self) -> None:
        """Show that no load or request is in progress."""


class ModelLoader:
    """Loads models one at a time, and keeps the last one loaded until another is requested.

    `engine_of` finds a model's engine, on a host that is not among those given if another has it;
    `host_name` is how results name a host, and `host_lock` excludes other processes from the slots
    of it that a case takes, or raises `TimeoutError` after some seconds. `prepare` is called once
    for each engine before its first load, while its host is locked. `cooldown` is a pause after an
    unload, in seconds.
    """

    def __init__(
        self,
        engine_of: Callable[[Model, Collection[str]], Engine],
        *,
        host_lock: Callable[[Engine, Case, float | None], AbstractContextManager[None]],
        host_name: Callable[[Engine], str] = host_of,
        watch: Watch,
        prepare: Callable[[Engine], None] = lambda engine: None,
        cooldown: float = 0.0,
    ) -> None:
        self._find_engine = engine_of
        self._engines: dict[str, Engine] = {}
        """Model id -> the engine that was chosen for it."""
        self._placed: set[str] = set()
        """Models that have been loaded there."""
        self.unusable: dict[str, Failure] = {}
        """Model id -> why none of its sizes can be tested: missing, corrupted, unsupported."""
        self.gone: dict[str, Failure] = {}
        """Why something is unreachable: a host, an engine without its program, or the id of a
        model whose weights cannot be fetched."""
        self._asked_at: dict[str, float] = {}
        """Host that is gone -> when it was last asked."""
        self.leaks: list[Failure] = []
        """Unconfirmed unloads that have not been reported yet."""
        self.sample_seed: int | None = None
        """The seed of the sample that runs: the default of its requests; else `None`."""
        self.is_probing = False
        """Whether a built-in check asks, and not a user's test."""
        self.host_name = host_name
        self._host_lock = host_lock
        self._watch = watch
        self._prepare = prepare
        self._prepared: set[int] = set()
        self._cooldown = cooldown
        self._current: tuple[LoadedModel, Instance] | None = None
        self._held = ExitStack()

    def engine_of(self, model: Model) -> Engine:
        """Return the engine of `model`: the same until `choose_host`."""
        if model.id not in self._engines:
            self._engines[model.id] = self._find_engine(model, self.gone)
        return self._engines[model.id]

    def choose_host(self, model: Model) -> None:
        """Move `model` to another host if its own is gone and another has it.

        Hosts that it would be tested on rather, and that have been gone for a while, are asked
        first whether they are back.
        """
        own = self._engines.get(model.id)
        if own is not None and host_of(own) not in self.gone:
            return
        still_gone: set[str] = set()
        while True:
            engine = self._find_engine(model, still_gone)
            host = host_of(engine)
            if host not in self.gone or host in still_gone or self._is_back(engine):
                break
            still_gone.add(host)
        self._engines[model.id] = engine
        self._placed.discard(model.id)

    def _is_back(self, engine: Engine) -> bool:
        host = host_of(engine)
        since = self._asked_at.setdefault(host, time.monotonic())
        if time.monotonic() - since < RETURN_SECONDS:
            return False
        self._asked_at[host] = time.monotonic()
        with suppress(Exception):  # third-party engines may raise anything
            engine.models()
            del self.gone[host], self._asked_at[host]
            return True
        return False

    def load(self, model: Model, context_length: int) -> LoadedModel:
        """Load `model` with `context_length` tokens, unless it is loaded so already.

        Raises:
            Failure: The load failed.
        """
        if self._current is not None:
            loaded = self._current[0]
            if loaded.serves(model, context_length) and not loaded.failed:
                return loaded
        loaded = LoadedModel(self, model, context_length)
        self.instance_of(loaded)
        return loaded

    def instance_of(self, loaded: LoadedModel) -> Instance:
        """Return the engine's instance behind `loaded`; load it if necessary."""
        if self._current is not None and self._current[0] is loaded and not loaded.failed:
            return self._current[1]
        self.unload()
        granted_before = loaded.context_length
        while not self._load_on(loaded, self.engine_of(loaded.model)):
            # Others use that host; the one that the model would rather be on may be back.
            del self._engines[loaded.model.id]
            self.choose_host(loaded.model)
        assert self._current is not None
        if granted_before not in (0, loaded.context_length):
            self.unload()
            raise Failure(
                f"asked again for {loaded.asked_context_length:,} tokens of context, granted"
                f" {loaded.context_length:,} and not {granted_before:,} as before",
                verdict=Verdict.CONTEXT_NOT_GRANTED,
                phase="load",
            )
        return self._current[1]

    def _load_on(self, loaded: LoadedModel, engine: Engine) -> bool:
        """Load on the host of `engine`; return whether it was free in time."""
        model = loaded.model
        known = self.unusable.get(model.id) or self.unreachable_reason(model)
        if known is not None:
            raise known
        may_move = bool(self.gone) and model.id not in self._placed
        with self.remember_failures(model):
            self._fetch(model, engine)
            if not self._load(loaded, engine, RETURN_SECONDS if may_move else None):
                return False
        self._placed.add(model.id)
        return True

    def _fetch(self, model: Model, engine: Engine) -> None:
        """Download the weights: not part of a load, and possible without the host's lock."""
        if isinstance(engine, Fetches):
            with EngineErrors("load"):
                engine.fetch(model)

    @contextmanager
    def remember_failures(self, model: Model) -> Iterator[None]:
        """Remember from a `Failure` what must not be tried again."""
        try:
            yield
        except Failure as failure:
            if may_lack_memory(failure) and (held := held_by_others(self.engine_of(model), model)):
                text = f"{failure.text}\n{held}, so this does not count against {model.id}"
                raise Failure(
                    text,
                    verdict=Verdict.HOST_TROUBLE,
                    phase=failure.phase,
                    only_this_model=True,  # a smaller one may still have room
                ) from failure
            if failure.verdict is Verdict.MODEL_NOT_FOUND and failure.phase == "load":
                failure.text += similar_ids(self.engine_of(model), model)
            if failure.verdict.outcome == "xfailed":
                self.unusable[model.id] = failure
            elif failure.verdict is Verdict.UNREACHABLE:
                engine = self.engine_of(model)
                if failure.code == WEIGHTS:
                    self.gone[model.id] = failure
                elif failure.code == NO_ENGINE:
                    self.gone[model.engine] = failure
                elif failure.final or not self._reconnects(engine):
                    self.gone[host_of(engine)] = failure
            raise

    def _reconnects(self, engine: Engine) -> bool:
        """Try to reach a lost host again, a few times with pauses."""
        host = host_of(engine)
        deadline = time.monotonic() + RECONNECT_SECONDS
        try:
            for pause in RECONNECT_PAUSES:
                if host in self.gone or time.monotonic() > deadline:
                    break
                if pause:
                    self._watch.waiting(host, f"an answer, retry in {pause:g} s")
                    time.sleep(pause)
                with suppress(Exception):  # third-party engines may raise anything
                    engine.models()
                    return True
        finally:
            self._watch.idle()
        return False

    def unreachable_reason(self, model: Model) -> Failure | None:
        """Return why the host of `model`, or the source of its weights, is unreachable."""
        host = host_of(self.engine_of(model))
        return self.gone.get(host) or self.gone.get(model.id) or self.gone.get(model.engine)

    def _load(self, loaded: LoadedModel, engine: Engine, wait_seconds: float | None) -> bool:
        host = host_of(engine)
        with ExitStack() as undo, EngineErrors("load"):
            undo.callback(self._watch.idle)
            try:
                case = Case(model=loaded.model, context_length=loaded.asked_context_length)
                if not attaches(engine):
                    undo.enter_context(self._host_lock(engine, case, wait_seconds))
            except TimeoutError:
                return False
            except OSError as error:
                text = f"{host} cannot be locked: {error}"
                self.gone[host] = Failure(text, verdict=Verdict.UNREACHABLE, phase="connect")
                raise self.gone[host] from error
            if id(engine) not in self._prepared:
                self._prepare(engine)
                self._prepared.add(id(engine))
            progress = self._watch.loading(loaded.model.id, loaded.asked_context_length)
            started = time.perf_counter()
            instance = engine.load(loaded.model, loaded.asked_context_length, progress)
            self._current, self._held = (loaded, instance), undo.pop_all()
            loaded.load_seconds = time.perf_counter() - started
            loaded.failed = False
        try:
            with EngineErrors("load"):
                loaded.context_length = whole(instance.context_length)
                loaded.read(instance)
        except Failure:
            self.unload()
            raise
        return True

    def loaded(self) -> LoadedModel | None:
        """Return the current model."""
        return self._current and self._current[0]

    def unload(self) -> None:
        """Unload the current model and release its host; failures are added to `leaks`.

        After an interrupt the instance still counts as loaded, so that the unload is repeated.
        """
        if self._current is None:
            return
        loaded, instance = self._current
        try:
            with EngineErrors("unload"):
                instance.unload()
        except Failure as trouble:
            # Not raised here: neither the tested model nor the next one is to blame.
            if trouble.verdict is not Verdict.UNREACHABLE or not self.unreachable_reason(
                loaded.model
            ):
                text = f"{loaded.model.id} may still be in memory: {trouble.text}"
                self.leaks.append(Failure(text, verdict=trouble.verdict, phase="unload"))
        self._current = None
        with self._held:
            time.sleep(self._cooldown)

    def report_leaks(self) -> None:
        """Raises:
        Failure: An unload since the last call could not be confirmed.
        """
        leaks, self.leaks = self.leaks, []
        if leaks:
            text = "\n".join(leak.text for leak in leaks)
            raise Failure(text, verdict=leaks[0].verdict, phase="unload")
