"""The engine `openai`: models that a running server has; it is attached to, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts, fingerprint
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.openai.client import OpenAiClient, PathMissing
from pytest_lmstrix.engines.openai.contexts import NOT_LOADED, ask_context
from pytest_lmstrix.engines.openai.instance import OpenAiInstance, ServedModel
from pytest_lmstrix.engines.openai.key import ApiKey, refusal_of_server
from pytest_lmstrix.engines.openai.listing import Listing, ListingAnswer, ServerModel
from pytest_lmstrix.engines.openai_form import LlamaCppProperties
from pytest_lmstrix.system.addresses import server_url

SCHEME = "openai+"
"""Before the URL of a host, as in `openai+http://127.0.0.1:8000`."""
_MOST_NAMES = 5


class _Version(Struct):
    version: str


class _SlotSettings(Struct):
    n_ctx: int


class _Properties(LlamaCppProperties, frozen=True):
    """llama.cpp's `/props`."""

    build_info: str | None = None
    default_generation_settings: _SlotSettings | None = None


class OpenAiEngine:
    """One server; `host` is `openai+http://host:port`.

    `reply_timeout` is the silence limit in seconds while it prefills or answers; `pause` waits
    a number of seconds, for a server that is busy.
    """

    name = "openai"
    attaches = True

    def __init__(
        self,
        host: str | None = None,
        *,
        reply_timeout: float = 120.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = server_url(host.removeprefix(SCHEME)) if host else None
        self.host = self._url.partition("://")[2] if self._url else self.name
        self._reply_timeout = reply_timeout
        self._pause = pause
        self._clients: dict[str | None, OpenAiClient] = {}
        self._listings: dict[str | None, Listing | Failure | None] = {}
        self._variable: str | None = None
        """The variable with the key of the last model."""
        self._version: str | None = None

    @property
    def version(self) -> str | None:
        """The version of the server's software, such as `0.11.0`; `None` if unknown."""
        if self._version is None and self._url is not None:
            with suppress(Failure):
                client = self._client(self._variable)
                self._version = _version(client)
        return self._version

    def models(self) -> list[ModelFacts]:
        """Return the models that the server lists.

        Raises:
            Failure: The server does not answer.
        """
        listing = self._listing(self._variable, "connect") or Listing(data=())
        return [_facts(model, model.id, listing) for model in listing.data]

    def facts(self, model: Model) -> ModelFacts | None:
        """Return the server's facts of `model`, from one listing per key, or `None`.

        Raises:
            Failure: The server does not answer.
        """
        variable = self._variable = model.api_key_env
        if variable not in self._listings:
            try:
                self._listings[variable] = self._listing(variable, "connect")
            except Failure as failure:
                self._listings[variable] = failure  # an unreachable server is asked once
        known = self._listings[variable]
        if isinstance(known, Failure):
            raise known
        listed = known.find(model.served_name or model.name) if known else None
        return _facts(listed, model.id, known) if listed and known else None

    def load(self, model: Model, context_length: int, progress: Progress) -> OpenAiInstance:
        """Attach to `model`, with the context that the server has; see `Engine.load`."""
        self._variable = model.api_key_env
        name = model.served_name or model.name
        listing = self._listing(self._variable, "load")
        if listing is not None and listing.find(name) is None:
            raise _not_listed(name, listing, self.host)
        client = self._client(self._variable)
        listed = listing.find(name) if listing else None
        served = _served(model, listed, context_length)
        reported = listing.context_of(name) if listing else None
        if reported is None and (reported := ask_context(client, name)) == NOT_LOADED:
            # It is loaded for this request, as it would be for the first one of a check.
            OpenAiInstance(client, served, progress, reply_timeout=self._reply_timeout).wake()
            reported = ask_context(client, name)
        if reported:
            served = replace(served, context_length=reported, is_reported=True)
        if served.reports_prefill:
            properties = _properties(client)
            slot = properties.default_generation_settings
            served = replace(served, capabilities=properties.capabilities,
                             request_context=slot and slot.n_ctx)  # fmt: skip
        progress(1.0)
        return OpenAiInstance(client, served, progress, reply_timeout=self._reply_timeout)

    def close(self) -> None:
        """Close the connections; the server keeps its models."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, variable: str | None) -> OpenAiClient:
        if self._url is None:
            raise refusal_of_server(
                "no server is named: give the model the key url, or name a host with"
                f" --lmstrix-host {SCHEME}http://HOST:PORT"
            )
        if variable not in self._clients:
            self._clients[variable] = OpenAiClient(self._url, ApiKey(variable), pause=self._pause)
        return self._clients[variable]

    def _listing(self, variable: str | None, phase: Phase) -> Listing | None:
        """Return the models of the server; `None` if it lists none."""
        try:
            answer = self._client(variable).get("/v1/models", ListingAnswer, phase=phase)
        except PathMissing:
            return None
        if (listing := answer.listing()) is not None:
            return listing
        text = "the server does not answer as OpenAI's interface does: /v1/models lists no models"
        raise Failure(text, verdict=Verdict.UNREACHABLE, phase=phase)


def _served(model: Model, listed: ServerModel | None, context_length: int) -> ServedModel:
    """Return what is known of a model before its server is asked for more."""
    return ServedModel(
        # Its name there: another one, such as without a default tag, would get the same model.
        name=listed.id if listed else model.served_name or model.name,
        context_length=min(context_length, model.context_limit or context_length),
        # The server has its own number of slots, but as many requests are sent at once.
        ignored_settings=tuple(
            name for name in msgspec.to_builtins(model.load) if name != "parallel"
        ),
        is_listed=listed is not None,
        reports_prefill=listed is not None and listed.meta is not None,
        embeds=model.type == "embedding",
    )


def _facts(model: ServerModel, id: str, listing: Listing) -> ModelFacts:
    meta = model.meta
    return ModelFacts(
        id=id,
        context_limit=model.declared_context or listing.context_of(model.id),
        size_bytes=meta.size if meta else None,
        fingerprint=fingerprint(
            sha256=None, size_bytes=meta.size if meta else None, path=model.root or model.id
        ),
    )


def _not_listed(name: str, listing: Listing, host: str) -> Failure:
    names = ", ".join(repr(model.id) for model in listing.data[:_MOST_NAMES]) or "no model"
    text = (
        f"the server at {host} does not have '{name}'; it has {names}, and the key model gives the"
        " name on the server where that is not the id"
    )
    return Failure(text, verdict=Verdict.MODEL_NOT_FOUND, phase="load")


def _version(client: OpenAiClient) -> str | None:
    """Ask for the version as vLLM, or else llama.cpp, reports it."""
    asks: tuple[Callable[[], str | None], ...] = (
        lambda: client.get("/version", _Version, phase="connect").version,
        lambda: client.get("/props", _Properties, phase="connect").build_info,
    )
    for ask in asks:
        with suppress(Failure, PathMissing):
            return ask()
    return None


def _properties(client: OpenAiClient) -> _Properties:
    """Return what llama.cpp's server reports of one request's context and of its model."""
    with suppress(Failure, PathMissing):
        return client.get("/props", _Properties, phase="load")
    return _Properties()
