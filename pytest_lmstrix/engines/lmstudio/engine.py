"""The engine `lmstudio`: models in a running LM Studio, each load an instance of our own."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from lmstudio import LMStudioServerError

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.lmstudio.connection import Link, stalling
from pytest_lmstrix.engines.lmstudio.instance import LmStudioInstance
from pytest_lmstrix.engines.lmstudio.listing import listed_models, load_config

_log = logging.getLogger(__name__)

PREFIX = "lmstrix-"
"""How the identifiers of our instances begin; no other instance is ever touched."""

LATE_LOAD_SECONDS = 120.0
"""How long a load that was given up is watched for, to be unloaded when it finishes after all."""

UNHEARD_LOAD_SECONDS = 15.0
"""The same for an interrupted load that was not heard of yet: it may never have been asked for."""

UNLOAD_SECONDS = 30.0
"""How long an instance may stay listed after LM Studio agreed to unload it."""

_NO_ROOM = (Verdict.OUT_OF_MEMORY, Verdict.GUARDRAIL_REFUSED)
_POLL_SECONDS = 0.2


class LmStudioEngine:
    """One LM Studio server.

    Instances are named `lmstrix-OWNER-RANDOM`. `load_timeout` and `reply_timeout` are the seconds
    of silence allowed while a model loads and while it prefills or answers.
    """

    name = "lmstudio"

    def __init__(
        self,
        host: str | None = None,
        *,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        owner: str | None = None,
        late_load_seconds: float = LATE_LOAD_SECONDS,
        unload_seconds: float = UNLOAD_SECONDS,
        tell: Callable[[str], None] = _log.warning,
    ) -> None:
        self.link = Link(host)
        self.load_timeout = load_timeout
        self.reply_timeout = reply_timeout
        self.owner = owner or "unowned"
        self.late_load_seconds = late_load_seconds
        self.unload_seconds = unload_seconds
        self.tell = tell
        self._open: set[str] = set()
        """Asked for, and not known to be gone."""
        self._strays: set[str] = set()
        """Those of them that nobody holds any more."""
        self._listing: dict[str, ModelFacts] | None = None

    @property
    def host(self) -> str:
        """`host:port`; looked for at LM Studio's default ports where none was given.

        `localhost` as long as no server is found there: whatever is asked of it then fails.
        """
        try:
            return self.link.host
        except Failure:
            return "localhost"

    @property
    def ttl_seconds(self) -> int:
        """Idle seconds after which LM Studio itself unloads an instance that we left behind.

        Longer than we ever leave one idle, which is between two replies.
        """
        return int(max(600, 2 * self.reply_timeout))

    @cached_property
    def version(self) -> str | None:
        """The version of LM Studio, such as `0.4.2+1`; `None` when it does not tell. Asked once."""
        with suppress(Failure):
            told = self.link.ask(
                lambda client: client.system.remote_call("version"),
                phase="connect",
                doing="asking for the version",
                namespace="system",
            )
            parts = (told.get("version"), told.get("build")) if isinstance(told, dict) else ()
            return "+".join(str(part) for part in parts if part is not None) or None
        return None

    def models(self) -> list[ModelFacts]:
        """Every model on the server's disks, embedding models included.

        Raises:
            Failure: The server does not answer.
        """
        models = self.link.ask(
            lambda client: listed_models(client.system.remote_call("listDownloadedModels")),
            phase="connect",
            doing="listing the models",
            namespace="system",
        )
        self._listing = {facts.id: facts for facts in models}
        return models

    def facts(self, model: Model) -> ModelFacts | None:
        """What LM Studio says of `model`, from one listing a session; `None` if it has none."""
        if self._listing is None:
            self._listing = {}  # a server that does not answer is not asked for each model
            self.models()
        return self._listing.get(model.id)

    def load(self, model: Model, context_length: int, progress: Progress) -> LmStudioInstance:
        """Load a new instance of `model`, whatever else is loaded.

        Raises:
            Failure: It does not load; what may have come of it is unloaded.
        """
        config = load_config(model, context_length)
        self._release_strays()  # asks at least once, and so finds out a connection that died
        identifier = f"{PREFIX}{self.owner}-{secrets.token_hex(4)}"
        doing = f"loading {model.id}"
        self._open.add(identifier)
        heard = False
        furthest = -1.0

        try:
            with (
                self.link.talking("load", doing, self.load_timeout) as client,
                stalling(self.load_timeout) as moved,
            ):

                def hear(fraction: float) -> None:
                    nonlocal heard, furthest
                    heard = True
                    if fraction > furthest:  # else a load that starts over would never time out
                        furthest = fraction
                        moved()
                        progress(fraction)

                client.llm.load_new_instance(
                    model.id,
                    identifier,
                    ttl=self.ttl_seconds,
                    config=config,
                    on_load_progress=hear,
                )
            return LmStudioInstance(self, identifier, progress)
        except BaseException as error:
            self.abandon(identifier, error, loading=True, heard=heard)
            if isinstance(error, Failure) and error.verdict in _NO_ROOM and (left := self._left()):
                text = (
                    f"{error.text}\nstill in memory are {', '.join(left)},"
                    f" so this says nothing of {model.id}: unload them in LM Studio"
                )
                # The only verdict that is on no model: smaller sizes of it are not tried either.
                raise Failure(text, verdict=Verdict.UNREACHABLE, phase="load") from error
            raise

    def unload(self, identifier: str) -> None:
        """Unload an instance of ours and wait until it is no longer listed; gone is gone.

        Raises:
            Failure: LM Studio refuses, or goes on listing it.
        """
        if not identifier.startswith(PREFIX):
            raise ValueError(f"{identifier!r} is not one of our instances")
        try:
            self._unload(identifier)
        except Failure:
            self._strays.add(identifier)
            raise
        self._open.discard(identifier)
        self._strays.discard(identifier)

    def _unload(self, identifier: str) -> None:
        doing = f"unloading {identifier}"
        deadline = None
        while identifier in self.link.loaded("unload"):
            if deadline is None:
                self._ask_to_unload(identifier, doing)
                deadline = time.monotonic() + self.unload_seconds
            elif time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            else:
                text = f"LM Studio still lists {identifier} {self.unload_seconds:g} s after {doing}"
                raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="unload")

    def sweep(self, is_dead: Callable[[str], bool]) -> list[str]:
        """Unload the instances whose owner is dead by `is_dead(owner)`; return their identifiers.

        Raises:
            Failure: The server does not answer.
        """
        ours = [name for name in self.link.loaded("connect") if name.startswith(PREFIX)]
        dead = [name for name in ours if is_dead(name.removeprefix(PREFIX).rpartition("-")[0])]
        return [identifier for identifier in dead if self._unloaded(identifier)]

    def close(self) -> None:
        """Unload whatever is left, loads included that finished after they were given up."""
        self._strays |= self._open
        if self._strays:
            with suppress(Failure):
                self._release_strays()
        for identifier in sorted(self._strays):
            self.tell(
                f"LM Studio at {self.host} may still have or load {identifier};"
                f" it will unload it after {self.ttl_seconds} idle seconds"
            )
        self._strays.clear()
        self._open.clear()
        self.link.drop()

    def abandon(
        self, identifier: str, error: BaseException, *, loading: bool, heard: bool = True
    ) -> None:
        """Unload what `error` has made us give up, a load that finishes only later included.

        Raises:
            Failure: The server does not answer at all, so its silence says nothing of the model.
        """
        verdict = error.verdict if isinstance(error, Failure) else None
        late = loading and verdict in (None, Verdict.TIMEOUT, Verdict.UNREACHABLE)
        if loading and not isinstance(error.__cause__, LMStudioServerError):
            self._strays.add(identifier)  # nobody said that the load is over
        try:
            if late:
                unheard = not heard and verdict is None
                limit = UNHEARD_LOAD_SECONDS if unheard else self.late_load_seconds
                self._release_strays(min(limit, self.late_load_seconds))
            else:
                self.unload(identifier)
        except Failure as trouble:
            self._strays.add(identifier)
            _log.warning("LM Studio may have %s still loaded: %s", identifier, trouble.text)
            if verdict is Verdict.TIMEOUT and trouble.verdict is Verdict.UNREACHABLE:
                raise trouble from error

    def _left(self) -> list[str]:
        """Ours that nobody uses: what is loaded while a load of ours fails, other workers' too."""
        listed: list[str] = []
        with suppress(Failure):
            listed = self.link.loaded("load")
        return sorted(self._strays.union(name for name in listed if name.startswith(PREFIX)))

    def _release_strays(self, patience_seconds: float = 0.0) -> None:
        """Unload what was given up, once it is listed; wait for that so long."""
        deadline = time.monotonic() + patience_seconds
        if self._strays and patience_seconds:
            self.tell(
                f"waiting up to {patience_seconds:g} s for LM Studio to finish a load that was"
                " given up, to unload it; Ctrl-C now leaves that to LM Studio, after"
                f" {self.ttl_seconds} idle seconds"
            )
        while True:
            for identifier in self._strays.intersection(self.link.loaded("connect")):
                if not self._unloaded(identifier):
                    return
            if not self._strays or time.monotonic() >= deadline:
                return
            time.sleep(_POLL_SECONDS)

    def _unloaded(self, identifier: str) -> bool:
        """Unload a leftover; a refusal is logged only, for what is loaded next is not to blame."""
        try:
            self.unload(identifier)
        except Failure as trouble:
            if trouble.verdict is Verdict.UNREACHABLE:
                raise
            _log.warning("LM Studio may have %s still loaded: %s", identifier, trouble.text)
            return False
        return True

    def _ask_to_unload(self, identifier: str, doing: str) -> None:
        try:
            self.link.ask(lambda client: client.llm.unload(identifier), phase="unload", doing=doing)
        except Failure as failure:
            # Slow to answer or gone already: the listing will tell.
            slow = isinstance(failure.__cause__, TimeoutError)
            if failure.verdict is not Verdict.MODEL_NOT_FOUND and not slow:
                raise
