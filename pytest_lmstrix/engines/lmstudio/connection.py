"""The connection to an LM Studio server: discovery, timeouts and reconnection."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any, Literal, TypeVar
from urllib.request import getproxies

import httpx
from lmstudio import (
    Client,
    LMStudioServerError,
    LMStudioUnknownMessageWarning,
    get_sync_api_timeout,
    set_sync_api_timeout,
)

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.lmstudio.access import api_token, refused, stranger
from pytest_lmstrix.engines.lmstudio.errors import failure_from
from pytest_lmstrix.system.addresses import host_port

_T = TypeVar("_T")

Namespace = Literal["llm", "embedding", "system"]

RPC_SECONDS = 30.0
"""Time limit for a connection or a short call; then the server counts as unreachable."""

FRESH_SECONDS = 10.0
"""How long an answer shows that a connection is alive."""

CLOSE_SECONDS = 5.0
"""Time limit for closing a client: the SDK has none."""

_SDK_LOGGERS = (
    "AsyncWebsocketHandler",
    "AsyncWebsocketThread",
    "ChannelHandler",
    "ChatResponseEndpoint",
    "CompletionEndpoint",
    "LoadModelEndpoint",
    "RemoteCallHandler",
    "SyncLMStudioWebsocket",
    "SyncRemoteCall",
    "SyncToAsyncWebsocketBridge",
)


class Link:
    """A client of one server, replaced whenever it may have become unusable.

    The SDK has one time limit for the whole process; calls must not overlap in it.
    """

    def __init__(self, host: str | None) -> None:
        self._host = host_port(host) if host else None
        self._client: Client | None = None
        self._answered_at = -math.inf
        self._listing: list[dict[str, Any]] | None = None
        """The loaded models, as long as nothing was asked since."""
        self._lent: Client | None = None
        for name in _SDK_LOGGERS:
            # Where logging is not configured, it writes warnings to stderr, in JSON.
            if not (logger := logging.getLogger(name)).handlers:
                logger.addHandler(logging.NullHandler())

    @property
    def host(self) -> str:
        """`host:port`; by default the first of LM Studio's default ports that answers.

        Raises:
            Failure: No server answers there.
        """
        if self._host is None:
            self._host = _Client.find_default_local_api_host()
        if self._host is None:
            text = "LM Studio is not reachable at any of its default ports; is its server running?"
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect")
        return self._host

    def ask(
        self,
        question: Callable[[Client], _T],
        *,
        phase: Phase,
        doing: str,
        namespace: Namespace = "llm",
    ) -> _T:
        """Return the answer to a short call; retry once if an old connection is broken.

        Raises:
            Failure: There is none within `RPC_SECONDS`, or it is an error.
        """
        reused = self._client is not None
        for final in (not reused, True):
            try:
                with self.talking(
                    phase, doing, RPC_SECONDS, silent=Verdict.UNREACHABLE, namespace=namespace
                ) as client:
                    return question(client)
            except Failure as trouble:
                dead = trouble.verdict is Verdict.UNREACHABLE
                if (
                    final
                    or trouble.final
                    or not dead
                    or isinstance(trouble.__cause__, TimeoutError)
                ):
                    raise
        raise AssertionError("unreachable because the last try returns or raises")

    @contextmanager
    def talking(
        self,
        phase: Phase,
        doing: str,
        silence_seconds: float,
        *,
        silent: Verdict = Verdict.TIMEOUT,
        namespace: Namespace = "llm",
    ) -> Iterator[Client]:
        """A connected client, on which no message may take longer than `silence_seconds`.

        Raises:
            Failure: Whatever goes wrong inside, be it the SDK's or its libraries' error.
        """
        if self._lent is not None:
            try:
                yield self._lent
            except Exception as error:
                failure = failure_from(
                    error, phase, doing=doing, silence_seconds=silence_seconds, silent=silent
                )
                if failure is error:
                    raise
                raise failure from error
            return
        limit = get_sync_api_timeout()
        try:
            client = self._connected(namespace)
            self._listing = None
            set_sync_api_timeout(silence_seconds)
            with warnings.catch_warnings():
                # A newer server may send fields unknown to the SDK; an error would end the call.
                warnings.simplefilter("ignore", LMStudioUnknownMessageWarning)
                yield client
            self._answered_at = time.monotonic()
        except Exception as error:
            # The limit may have been changed on the way; what counts is the one that ran out.
            ran_out = get_sync_api_timeout() or silence_seconds
            failure = failure_from(
                error, phase, doing=doing, silence_seconds=ran_out, silent=silent
            )
            if failure.verdict in (Verdict.TIMEOUT, Verdict.UNREACHABLE):
                self.drop()
            if failure is error:
                raise
            raise failure from error
        except BaseException:
            self.drop()
            raise
        finally:
            set_sync_api_timeout(limit)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within `talking`, let other threads talk on its client, all without a time limit."""
        self._lent = self._client
        set_sync_api_timeout(None)
        try:
            yield
        finally:
            self._lent = None

    @property
    def is_alive(self) -> bool:
        """Whether the server has answered just now, and the connection is open as far as known."""
        if self._client is None or time.monotonic() - self._answered_at > FRESH_SECONDS:
            return False
        return _is_open(self._client.llm)

    def loaded(self, phase: Phase, *namespaces: Namespace) -> dict[str, str | None]:
        """Return all instances of `namespaces`: their identifiers, and their linked devices."""
        return {
            each["identifier"]: each.get("deviceIdentifier")
            for namespace in namespaces
            for each in self.instances(phase, namespace)
        }

    def instances(self, phase: Phase, namespace: Namespace = "llm") -> list[dict[str, Any]]:
        """Return all instances of a namespace as the server describes them."""
        listing: list[dict[str, Any]] = self.ask(
            lambda client: _session(client, namespace).remote_call("listLoaded"),
            phase=phase,
            doing="listing the loaded models",
            namespace=namespace,
        )
        self._listing = listing if namespace == "llm" else None
        return listing

    def last_instances(self, phase: Phase) -> list[dict[str, Any]]:
        """Return the same; not asked again where it was the last question, a moment ago."""
        listing = self._listing if self.is_alive else None
        return self.instances(phase) if listing is None else listing

    def version(self) -> str | None:
        """Return the version of LM Studio, such as `0.4.2+1`; `None` if it has none.

        Raises:
            Failure: The server does not answer.
        """
        answer = self.ask(
            lambda client: client.system.remote_call("version"),
            phase="connect",
            doing="asking for the version",
            namespace="system",
        )
        parts = (answer.get("version"), answer.get("build")) if isinstance(answer, dict) else ()
        return "+".join(str(part) for part in parts if part is not None) or None

    def drop(self) -> None:
        """Close the client; the next call creates another."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                _within(CLOSE_SECONDS, client.close)

    def _connected(self, namespace: Namespace) -> Client:
        token = api_token()
        if self._client is None:
            self._client = _Client(self.host)
        session = _session(self._client, namespace)
        if session.connected and _is_open(session):
            return self._client
        if session.connected:  # the server has closed it; the SDK would go on using it
            session.disconnect()
        try:
            _within(RPC_SECONDS, session.connect)
        except Exception as error:
            text = " ".join(str(error).split())
            if "all" in getproxies():
                # The SDK would use the environment's proxy for its WebSockets.
                text += f" (ALL_PROXY is set: set NO_PROXY={self.host.rpartition(':')[0]} as well)"
            if isinstance(error, TimeoutError):
                text = f"LM Studio at {self.host} has accepted no connection for {RPC_SECONDS:g} s"
            elif isinstance(error, ValueError | LMStudioServerError):
                # SDK 1.5 cannot read why it was refused, and fails with a `ValueError` at that.
                raise refused(self.host, token) from error
            elif (other := stranger(self.host)) is not None:
                raise other from error
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect") from error
        return self._client


def _session(client: Client, namespace: Namespace) -> Any:
    return getattr(client, namespace)


@contextmanager
def stalling(seconds: float, then: float | None = None) -> Iterator[Callable[[], None]]:
    """Time out the block after `seconds` without progress; yield a function that reports progress.

    After the first progress the limit is `then` seconds. For `talking`, any message counts, also
    repeated ones, which the SDK does not pass on.
    """
    moved, over = Event(), Event()
    limit = seconds

    def watch() -> None:
        nonlocal limit
        while moved.wait(limit):
            moved.clear()
            if over.is_set():
                return
            limit = seconds if then is None else then
        set_sync_api_timeout(0.0)  # read when the SDK waits for the next message

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield moved.set
    finally:
        over.set()
        moved.set()
        watcher.join()
        if get_sync_api_timeout() == 0.0:
            set_sync_api_timeout(limit)  # `talking` reads which limit was exceeded


class _Client(Client):
    """The SDK's client, with API tokens, and a search that minds neither proxies nor strangers."""

    def _create_auth_message(self, *args: Any) -> Any:
        token = api_token()
        if token is None:
            return super()._create_auth_message(*args)
        return {
            "authVersion": 1,
            "clientIdentifier": token.identifier,
            "clientPasskey": token.passkey,
        }

    @staticmethod
    def _query_probe_url(url: str) -> httpx.Response:
        try:
            response = httpx.get(url, timeout=1, trust_env=False)
            response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise httpx.ConnectError("no LM Studio") from error
        return response


def _is_open(session: Any) -> bool:
    """Whether the WebSocket of a session is open, as far as the SDK's thread has noticed."""
    return getattr(getattr(session, "_lmsws", None), "_httpx_ws", None) is not None


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Wait for `call` up to `seconds`: the SDK has no limit here."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, daemon=True).start()
    done.result(seconds)
