"""The engine `lmstudio`: models in a running LM Studio, each load an instance of our own."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property

from lmstudio import LMStudioServerError
from msgspec import UNSET
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.lmstudio import endpoints
from pytest_lmstrix.engines.lmstudio.connection import Link, stalling
from pytest_lmstrix.engines.lmstudio.embedding.instance import LmStudioEmbeddingInstance
from pytest_lmstrix.engines.lmstudio.instance import LmStudioInstance
from pytest_lmstrix.engines.lmstudio.library import Library
from pytest_lmstrix.engines.lmstudio.settings import LM_STUDIOS_OWN, load_fields
from pytest_lmstrix.engines.lmstudio.usage import ModelUsage, read_usage

_log = logging.getLogger(__name__)

PREFIX = "lmstrix-"
"""Prefix of our instances' identifiers; other instances are never touched."""

LATE_LOAD_SECONDS = 120.0
"""How long an abandoned load is watched, to unload it if it finishes late."""

UNHEARD_LOAD_SECONDS = 15.0
"""The same for an interrupted load without progress: it may never have been requested."""

UNLOAD_SECONDS = 30.0
"""How long an instance may stay listed after LM Studio accepted to unload it."""

ESTIMATE_SECONDS = 10.0
"""How long LM Studio may take to estimate a load; versions without estimates never answer."""

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
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        self.link = Link(host)
        self.load_timeout = load_timeout
        self.reply_timeout = reply_timeout
        self.owner = owner or "unowned"
        self.late_load_seconds = late_load_seconds
        self.unload_seconds = unload_seconds
        self.notify = notify
        self._open: set[str] = set()
        """Requested, and not known to be unloaded."""
        self._strays: set[str] = set()
        """Those of them that were abandoned."""
        self._library = Library(self.link)

    @property
    def host(self) -> str:
        """`host:port`; by default discovered at LM Studio's default ports.

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
        """The version of LM Studio, such as `0.4.2+1`; `None` if unknown. Cached."""
        with suppress(Failure):
            return self.link.version()
        return None

    def models(self) -> list[ModelFacts]:
        """Return every model on the server's disks, embedding models included.

        Raises:
            Failure: The server does not answer.
        """
        return self._library.models()

    def facts(self, model: Model) -> ModelFacts | None:
        """Return LM Studio's facts of `model`, from one listing per session, or `None`."""
        listed = self._library.find(model.name)
        return listed.facts if listed else None

    def estimate(self, model: Model, context_length: int) -> ModelUsage:
        """Return LM Studio's own estimate of a load; nothing is loaded.

        Raises:
            Failure: The server does not answer, as older versions do, or has no such model.
        """
        listed = self._library.find(model.name)
        asked = load_fields(model, context_length, listed.runtime if listed else "llama")
        doing = f"estimating the memory of {model.id}"
        with self.link.talking(
            "load", doing, ESTIMATE_SECONDS, silent=Verdict.UNREACHABLE
        ) as client:
            return read_usage(endpoints.usage(client, model.name, asked.all()))

    def load(
        self, model: Model, context_length: int | None, progress: Progress
    ) -> LmStudioInstance:
        """Load a new instance of `model`, whatever else is loaded.

        Without a context length, LM Studio's own settings of the model hold.

        Raises:
            Failure: It does not load; what may have come of it is unloaded.
        """
        listed = None
        with suppress(Failure):  # the load itself shows that the server does not answer
            listed = self._library.find(model.name)
        if listed is not None and model.type is None:
            model = replace(model, type=listed.facts.type)
        embeds = model.type == "embedding"
        asked = LM_STUDIOS_OWN
        if context_length is not None:
            asked = load_fields(model, context_length, listed.runtime if listed else "llama")
        device = listed.device if listed else UNSET
        if self._strays or not self.link.is_alive:
            self._release_strays()  # a request that detects a broken connection
        identifier = f"{PREFIX}{self.owner}-{endpoints.EMBEDS * embeds}{secrets.token_hex(4)}"
        namespace = endpoints.namespace_of(identifier)
        doing = f"loading {model.id}"
        self._open.add(identifier)
        heard, furthest = False, -1.0
        try:
            with (
                self.link.talking("load", doing, self.load_timeout, namespace=namespace) as client,
                stalling(self.load_timeout) as moved,
            ):

                def hear(fraction: float) -> None:
                    nonlocal heard, furthest
                    heard = True
                    if fraction > furthest:  # else a load that starts over would never time out
                        furthest = fraction
                        moved()
                        progress(fraction)

                endpoints.load(
                    client,
                    model.name,
                    identifier,
                    asked.all(),
                    ttl_seconds=self.ttl_seconds,
                    device=device,
                    hear=hear,
                )
            made = LmStudioEmbeddingInstance if embeds else LmStudioInstance
            where = None if device is UNSET else device
            return made(self, identifier, progress, asked, device=where)
        except BaseException as error:
            self.abandon(identifier, error, loading=True, heard=heard)
            raise

    def unload(
        self, identifier: str, device: str | None = None, *, is_listed: bool = False
    ) -> None:
        """Unload one of our instances and wait until it is no longer listed; idempotent.

        One that `is_listed`, as far as is known, is on the linked `device`.

        Raises:
            Failure: LM Studio refuses, or goes on listing it.
        """
        if not identifier.startswith(PREFIX):
            raise ValueError(f"{identifier!r} is not one of our instances")
        try:
            self._unload(identifier, {identifier: device} if is_listed else None)
        except Failure:
            self._strays.add(identifier)
            raise
        self._open.discard(identifier)
        self._strays.discard(identifier)

    def _unload(self, identifier: str, listed: Mapping[str, str | None] | None) -> None:
        doing = f"unloading {identifier}"
        namespace = endpoints.namespace_of(identifier)
        deadline = time.monotonic() + self.unload_seconds
        if listed is None:
            listed = self.link.loaded("unload", namespace)
        looks = itertools.count()
        while identifier in listed:
            match next(looks):
                case 0:
                    self._ask_to_unload(identifier, listed[identifier], doing, final=False)
                case 2:  # it was refused or ignored
                    self._ask_to_unload(identifier, listed[identifier], doing, final=True)
                case 1:
                    time.sleep(_POLL_SECONDS)
                case _ if time.monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
                case _:
                    text = (
                        f"LM Studio still lists {identifier} {self.unload_seconds:g} s after"
                        f" {doing}"
                    )
                    raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="unload")
            listed = self.link.loaded("unload", namespace)

    def sweep(self, is_dead: Callable[[str], bool]) -> list[str]:
        """Unload the instances whose `is_dead(owner)` is true; return their identifiers.

        Raises:
            Failure: The server does not answer.
        """
        listed = self.link.loaded("connect", "llm", "embedding")
        ours = [name for name in listed if name.startswith(PREFIX)]
        dead = [name for name in ours if is_dead(name.removeprefix(PREFIX).rpartition("-")[0])]
        return [identifier for identifier in dead if self._unloaded(identifier, listed[identifier])]

    def close(self) -> None:
        """Unload all remaining instances, including abandoned loads that finished late."""
        self._strays |= self._open
        if self._strays:
            with suppress(Failure):
                self._release_strays()
        for identifier in sorted(self._strays):
            self.notify(
                f"LM Studio at {self.host} may still have or load {identifier};"
                f" it will unload it after {self.ttl_seconds} idle seconds"
            )
        self._strays.clear()
        self._open.clear()
        self.link.drop()

    def abandon(
        self, identifier: str, error: BaseException, *, loading: bool, heard: bool = True
    ) -> None:
        """Unload the instance that `error` ended, including a load that finishes late.

        Raises:
            Failure: The server does not answer at all, so the model is not to blame.
        """
        verdict = error.verdict if isinstance(error, Failure) else None
        unanswered = loading and not isinstance(error.__cause__, LMStudioServerError)
        late = unanswered and verdict in (None, Verdict.TIMEOUT, Verdict.UNREACHABLE)
        if unanswered:
            self._strays.add(identifier)  # the server has not reported the end of the load
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

    def others(self) -> dict[str, int | None]:
        """Return the instances in memory that are not in use here, and their sizes in bytes.

        Raises:
            Failure: The server does not answer.
        """
        listed = self.link.last_instances("load")
        sizes: dict[str, int | None] = dict.fromkeys(sorted(self._strays))
        for each in listed:
            if each["identifier"] not in self._open - self._strays:
                size = each.get("sizeBytes")
                sizes[each["identifier"]] = size if isinstance(size, int) else None
        return sizes

    def _release_strays(self, patience_seconds: float = 0.0) -> None:
        """Unload abandoned instances; wait up to `patience_seconds` until they are listed."""
        deadline = time.monotonic() + patience_seconds
        if self._strays and patience_seconds:
            self.notify(
                f"waiting up to {patience_seconds:g} s for LM Studio to finish a load that was"
                " given up, to unload it; Ctrl-C now leaves that to LM Studio, after"
                f" {self.ttl_seconds} idle seconds"
            )
        while True:
            kinds = {"llm", *map(endpoints.namespace_of, self._strays)}
            listed = self.link.loaded("connect", *kinds)
            for identifier in self._strays.intersection(listed):
                if not self._unloaded(identifier, listed[identifier]):
                    return
            if not self._strays or time.monotonic() >= deadline:
                return
            time.sleep(_POLL_SECONDS)

    def _unloaded(self, identifier: str, device: str | None) -> bool:
        """Unload a leftover; a refusal is only logged, since the next model is not to blame."""
        try:
            self.unload(identifier, device, is_listed=True)
        except Failure as trouble:
            if trouble.verdict is Verdict.UNREACHABLE:
                raise
            _log.warning("LM Studio may have %s still loaded: %s", identifier, trouble.text)
            return False
        return True

    def _ask_to_unload(
        self, identifier: str, device: str | None, doing: str, *, final: bool
    ) -> None:
        try:
            self.link.ask(
                lambda client: endpoints.unload(client, identifier, device),
                phase="unload",
                doing=doing,
                namespace=endpoints.namespace_of(identifier),
            )
        except Failure as failure:
            # Slow to answer or unloaded already: the listing shows which.
            slow = isinstance(failure.__cause__, TimeoutError)
            if failure.verdict is Verdict.MODEL_NOT_FOUND or slow:
                return
            if final or failure.verdict is Verdict.UNREACHABLE:
                raise
            _log.info("LM Studio refused to unload %s: %s", identifier, failure.text)
