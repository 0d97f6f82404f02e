"""Requests to an Ollama server over HTTP; every error is raised as `Failure`.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import httpx
import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.lines import LINE_BYTES, LineTooLong, timely_lines

_T = TypeVar("_T")

SHORT_CALL_SECONDS = 30.0
"""Time limit for a connection or a short call; then the server counts as unreachable."""

_ERROR_BYTES = 1_000_000
_TURNED_AWAY = (401, 403, 407, 502, 503, 504)
"""Statuses that the server, or a proxy before it, gives whatever the model."""


class _Cause(Struct):
    message: str
    type: str | None = None


class _Error(Struct):
    error: str | _Cause


class _Nested(Struct):
    error: _Cause


class OllamaClient:
    """A client of the server at `url`."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=SHORT_CALL_SECONDS)

    def get(self, path: str, kind: type[_T], *, phase: Phase) -> _T:
        """Return the answer to a short GET, as `kind`."""
        with _failures(phase, SHORT_CALL_SECONDS, silent=Verdict.UNREACHABLE):
            return self._answer(self._http.get(path), kind, phase)

    def post(
        self,
        path: str,
        body: Mapping[str, object],
        kind: type[_T],
        *,
        phase: Phase,
        silence_seconds: float | None = None,
    ) -> _T:
        """Return the only answer to a POST, as `kind`; by default it is a short call."""
        limit = silence_seconds or SHORT_CALL_SECONDS
        silent = Verdict.UNREACHABLE if silence_seconds is None else Verdict.TIMEOUT
        timeout = httpx.Timeout(SHORT_CALL_SECONDS, read=limit)
        with _failures(phase, limit, silent=silent):
            return self._answer(self._http.post(path, json=body, timeout=timeout), kind, phase)

    def stream(
        self,
        path: str,
        body: Mapping[str, object],
        kind: type[_T],
        *,
        prefill_seconds: float,
        silence_seconds: float,
    ) -> Generator[_T]:
        """Yield the lines of a streamed answer, as `kind`; closing it cancels the computation.

        The first may take `prefill_seconds`, each of the others `silence_seconds`.
        """
        timeout = httpx.Timeout(SHORT_CALL_SECONDS, read=prefill_seconds)
        with (
            _failures("predict", prefill_seconds, silent=Verdict.TIMEOUT),
            self._http.stream("POST", path, json=body, timeout=timeout) as response,
        ):
            if response.is_error:
                answer = next(response.iter_bytes(_ERROR_BYTES), b"")
                raise _refusal(answer, response.status_code, "predict")
            for line in timely_lines(response, prefill_seconds, silence_seconds):
                if b'"error"' in line and _is_error(line):
                    raise _refusal(line, response.status_code, "predict")
                yield _decoded(line, kind, "predict")

    def close(self) -> None:
        self._http.close()

    def _answer(self, response: httpx.Response, kind: type[_T], phase: Phase) -> _T:
        if response.is_error:
            raise _refusal(response.content[:_ERROR_BYTES], response.status_code, phase)
        return _decoded(response.content, kind, phase)


@contextmanager
def _failures(phase: Phase, seconds: float, *, silent: Verdict) -> Iterator[None]:
    """Raise errors of the connection as `Failure`."""
    try:
        yield
    except LineTooLong as error:
        text = f"Ollama sent a line of more than {LINE_BYTES:,} bytes"
        raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase=phase) from error
    except httpx.ConnectTimeout as error:
        text = f"Ollama accepted no connection within {SHORT_CALL_SECONDS:g} s"
        raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect") from error
    except httpx.TimeoutException as error:
        text = f"timed out: Ollama sent nothing for {seconds:g} s ({error})"
        raise Failure(text, verdict=silent, phase=phase) from error
    except httpx.ConnectError as error:
        text = f"Ollama is not reachable ({error}); is its server running?"
        raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"connection to Ollama lost: {type(error).__name__} {error}".rstrip()
        raise Failure(text, verdict=Verdict.UNREACHABLE, phase=phase) from error


def _decoded(data: bytes, kind: type[_T], phase: Phase) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Before a model is requested, it cannot be at fault.
        verdict = Verdict.ENGINE_ERROR if phase == "predict" else Verdict.UNREACHABLE
        text = f"the server does not answer as Ollama does: {error}"
        raise Failure(text, verdict=verdict, phase=phase) from error


def _is_error(line: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(line, type=_Error).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _refusal(answer: bytes, status: int, phase: Phase) -> Failure:
    """Return the error in an answer; since 0.30 its text may be that of llama.cpp, as JSON."""
    text, code = answer.decode(errors="replace").strip() or f"HTTP status {status}", None
    try:
        error = msgspec.json.decode(answer, type=_Error).error
        if isinstance(error, str):
            text = error
            error = msgspec.json.decode(error, type=_Nested).error
        text, code = error.message, error.type
    except (msgspec.MsgspecError, UnicodeError):
        pass
    if status in _TURNED_AWAY:
        text = f"Ollama turned the request away ({status}): {text}"
        return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)
    return Failure.from_engine(text, phase=phase, code=code)


def in_use(text: str, phase: Phase) -> Failure:
    """Return the failure of a model that another client uses; other models may be free."""
    return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase, only_this_model=True)
