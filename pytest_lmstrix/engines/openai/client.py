"""Requests to an OpenAI-compatible server; every error is raised as `Failure`, without the key."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
import msgspec

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.lines import LINE_BYTES, LineTooLong, timely_lines
from pytest_lmstrix.engines.openai.key import ApiKey, refusal_of_server
from pytest_lmstrix.engines.openai.messages import StreamEvent
from pytest_lmstrix.engines.openai.refusals import ServerError, error_in, is_error, refusal_words
from pytest_lmstrix.engines.openai.stream import AnswerPart, Signs, parts_of

_T = TypeVar("_T")

CALL_SECONDS = 30.0
"""Time limit for a connection or a short call; then the server counts as unreachable."""
BUSY_SECONDS = 60.0
"""Total time that a busy server is waited for before a request is given up."""

_LEAST_PAUSE, _MOST_PAUSE = 0.5, 10.0
"""Seconds before another try where a busy server does not name them."""
_ERROR_BYTES = 1_000_000
_ANSWER_BYTES = 64_000_000
_BUSY = (429, 503)
_TURNED_AWAY = (407, 408, 502, 504)
"""Statuses of a server, or of a proxy before it, whatever the model."""
_TOO_LARGE = 413
"""Mostly of a proxy that takes no request of so many bytes; of a server for too many tokens."""
_OF_TOKENS = re.compile(r"\b(?:tokens?|context)\b", re.I)
_NO_SUCH_PATH = (404, 405, 501)
_NO_SUCH_INTERFACE = re.compile(
    r"does not support (?:the )?(?:chat )?completions?\b|\bunexpected endpoint or method\b", re.I
)


class PathMissing(Exception):
    """The server does not have the requested path."""


class OpenAiClient:
    """A client of the server at `url`; `pause` waits a number of seconds."""

    def __init__(
        self, url: str, key: ApiKey, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.key = key
        self._url = url
        self._pause = pause
        self._http = httpx.Client(
            base_url=url,
            headers=key.headers,
            timeout=CALL_SECONDS,
            # Servers close idle connections, which is a race for whoever keeps them.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,  # no other credentials, as of a .netrc file
            follow_redirects=False,  # another server must not get the key
        )

    def get(self, path: str, kind: type[_T], *, phase: Phase) -> _T:
        """Return the answer to a short GET, as `kind`.

        Raises:
            PathMissing: The server does not have `path`.
        """
        return self._call("GET", path, None, kind, phase)

    def post(
        self,
        path: str,
        body: Mapping[str, object],
        kind: type[_T],
        *,
        phase: Phase,
        silence_seconds: float | None = None,
    ) -> _T:
        """Return the answer to a POST, as `kind`; without `silence_seconds` it is a short call.

        Raises:
            PathMissing: The server does not have `path`.
        """
        return self._call("POST", path, body, kind, phase, silence_seconds)

    def events(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        prefill_seconds: float,
        silence_seconds: float,
    ) -> Generator[StreamEvent | None]:
        """Yield the events of an answer, `None` for its end where the server marks it.

        Closing it ends the computation. The first event may take `prefill_seconds`, each of the
        others `silence_seconds`. The answer of a server that does not stream is one event.

        Raises:
            PathMissing: The server does not have `path`.
        """
        timeout = httpx.Timeout(CALL_SECONDS, read=prefill_seconds)
        with (
            self._failures("predict", Verdict.TIMEOUT),
            self._answered("POST", path, body, timeout, "predict") as response,
        ):
            lines = timely_lines(response, prefill_seconds, silence_seconds, Signs())
            for part in parts_of(lines, _ANSWER_BYTES):
                if part.is_done:
                    yield None
                    return
                yield self._event(part, response.status_code)

    def _event(self, part: AnswerPart, status: int) -> StreamEvent:
        if part.prefill is not None:
            return StreamEvent(prompt_progress=part.prefill)
        if part.is_error or is_error(part.data):
            raise self._refusal(status, part.data, "predict")
        return self._decoded(part.data, StreamEvent, "predict")

    def close(self) -> None:
        self._http.close()

    @property
    def is_closed(self) -> bool:
        return self._http.is_closed

    def _call(
        self, method: str, path: str, body: Mapping[str, object] | None, kind: type[_T],
        phase: Phase, silence_seconds: float | None = None,
    ) -> _T:  # fmt: skip
        timeout = httpx.Timeout(CALL_SECONDS, read=silence_seconds or CALL_SECONDS)
        silent = Verdict.UNREACHABLE if silence_seconds is None else Verdict.TIMEOUT
        with (
            self._failures(phase, silent),
            self._answered(method, path, body, timeout, phase) as response,
        ):
            answer = _limited(response, _ANSWER_BYTES)
            if is_error(answer):  # LM Studio has status 200 for paths that it does not know
                raise self._refusal(response.status_code, answer, phase)
            return self._decoded(answer, kind, phase)

    @contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        timeout: httpx.Timeout,
        phase: Phase,
    ) -> Iterator[httpx.Response]:
        """Send a request until the server is not too busy for it, and yield the response."""
        left = 0.0 if phase == "connect" else BUSY_SECONDS
        pause = _LEAST_PAUSE
        while True:
            with self._http.stream(method, path, json=body, timeout=timeout) as response:
                status = response.status_code
                if response.is_success:
                    yield response
                    return
                answer = _redirection(response) or _limited(response, _ERROR_BYTES, cut=True)
                asked = _retry_after(response)
            wait = max(_LEAST_PAUSE, pause if asked is None else asked)
            refusal = self._refusal(status, answer, phase, asked)
            if status not in _BUSY or wait > left or is_out_of_memory(refusal):
                raise refusal
            self._pause(wait)
            left -= wait
            pause = min(2 * pause, _MOST_PAUSE)

    def _refusal(
        self, status: int, answer: bytes, phase: Phase, asked: float | None = None
    ) -> Exception:
        """Return the error in an answer."""
        error = error_in(answer) or ServerError(refusal_words(answer))
        words = self.key.redact(error.message) or f"HTTP status {status}"
        if status in (401, 403):
            return refusal_of_server(self._turned_away(status, words))
        failure = Failure.from_engine(words, phase=phase, code=error.name)
        if status in _BUSY and not is_out_of_memory(failure):
            wish = f", and asks to wait {asked:,.0f} s" if asked is not None else ""
            text = f"the server is busy ({status}){wish}: {words}"
            return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)
        too_large = status == _TOO_LARGE and not _OF_TOKENS.search(words)
        if status in _TURNED_AWAY or too_large or 300 <= status < 400:
            text = f"the server turned the request away ({status}): {words}"
            return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)
        if status in _NO_SUCH_PATH and not re.search(r"\bmodels?\b", words, re.I):
            return PathMissing(words)
        if _NO_SUCH_INTERFACE.search(words):
            return PathMissing(words)
        return failure

    def _turned_away(self, status: int, words: str) -> str:
        if self.key.variable is None:
            return (
                f"the server wants an API key ({status}): name the environment variable that holds"
                f" it with the key api_key_env; the server's words: {words}"
            )
        return (
            f"the server refuses the API key in the environment variable {self.key.variable}"
            f" ({status}): {words}"
        )

    @contextmanager
    def _failures(self, phase: Phase, silent: Verdict) -> Iterator[None]:
        """Raise errors of the connection as `Failure`.

        They have no cause: frames of the HTTP library hold the key, and pytest can show them.
        """
        try:
            yield
        except httpx.HTTPError as error:
            failure = self._connection_failure(error, phase, silent)
        except (LineTooLong, OverflowError):
            text = f"the server sent a line of more than {LINE_BYTES:,} bytes"
            failure = Failure(text, verdict=Verdict.ENGINE_ERROR, phase=phase)
        else:
            return
        raise failure from None

    def _connection_failure(self, error: httpx.HTTPError, phase: Phase, silent: Verdict) -> Failure:
        words = self.key.redact(f"{type(error).__name__} {error}".rstrip())
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            text = f"the server at {self._url} is not reachable ({words}); is it running?"
            return Failure(text, verdict=Verdict.UNREACHABLE, phase="connect")
        if isinstance(error, httpx.TimeoutException):
            return Failure(f"timed out: the server sent nothing ({words})", verdict=silent,
                           phase=phase)  # fmt: skip
        text = f"connection to the server lost: {words}"
        return Failure(text, verdict=Verdict.UNREACHABLE, phase=phase)

    def _decoded(self, data: bytes, kind: type[_T], phase: Phase) -> _T:
        try:
            return msgspec.json.decode(data, type=kind, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            text = f"the server does not answer as OpenAI's interface does: {error}"
        # Before a model is requested, it cannot be at fault.
        verdict = Verdict.ENGINE_ERROR if phase == "predict" else Verdict.UNREACHABLE
        raise Failure(self.key.redact(text), verdict=verdict, phase=phase)


def _redirection(response: httpx.Response) -> bytes:
    """Return in words where a response sends its client, without what may be a secret."""
    if not response.has_redirect_location:
        return b""
    target = response.headers["Location"].partition("?")[0]
    return f"it sends clients on to {target[:300]}: name that address instead".encode()


def is_out_of_memory(refusal: Exception) -> bool:
    """Whether a server refuses for want of memory, for which mlx_lm's has the status of a busy one.

    No other moment is better for that.
    """
    return isinstance(refusal, Failure) and refusal.verdict is Verdict.OUT_OF_MEMORY


def _limited(response: httpx.Response, most: int, *, cut: bool = False) -> bytes:
    """Return the body of a response.

    Raises:
        LineTooLong: It has more than `most` bytes and is not to be `cut`.
    """
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > most:
            if cut:
                break
            raise LineTooLong
    return bytes(body[:most])


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the server asks to wait: a number, or a date."""
    given = response.headers.get("Retry-After", "").strip()
    try:
        if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", given):
            return float(given)
        at = parsedate_to_datetime(given)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
