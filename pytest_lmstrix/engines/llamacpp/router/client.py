"""The interface of a running `llama-server` that is a router of models.

Source: "Using multiple models" in the README of llama.cpp's server, build 10434.
"""

from __future__ import annotations

import os
import re
from typing import TypeVar

import httpx
import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict

KEY_VARIABLE = "LLAMA_API_KEY"
"""The environment variable in which llama.cpp itself looks for a key."""
_CALL_SECONDS = 10.0
_RUNNING = ("loaded", "loading", "sleeping")
_EMBEDS = {"--embedding", "--embeddings", "--rerank", "--reranking"}


class SectionStatus(Struct, frozen=True):
    """The state of a section, and the arguments of its server."""

    value: str
    args: tuple[str, ...] = ()
    failed: bool = False
    exit_code: int | None = None


class Section(Struct, frozen=True):
    """A model of the router: a section of its presets, or a file."""

    id: str
    status: SectionStatus

    @property
    def is_running(self) -> bool:
        return self.status.value in _RUNNING

    @property
    def instance(self) -> str:
        """The port of its server, which differs from load to load; empty before."""
        port = self._argument("--port")
        return "" if port in (None, "0") else str(port)

    @property
    def context_length(self) -> int | None:
        """Tokens that it is set to; `None` if that is left to the model."""
        size = self._argument("--ctx-size") or ""
        return int(size) if size.isdecimal() and int(size) > 0 else None

    @property
    def model_id(self) -> str:
        """Its id without the context length, such as `qwen` of the section `qwen-8192`."""
        sized = re.fullmatch(r"(.+)-(\d+)", self.id)
        size = self.context_length
        return sized[1] if sized and size is not None and int(sized[2]) == size else self.id

    @property
    def embeds(self) -> bool:
        return bool(_EMBEDS & set(self.status.args))

    def _argument(self, name: str) -> str | None:
        words = self.status.args
        at = words.index(name) + 1 if name in words else len(words)
        return words[at] if at < len(words) else None


class Sections(Struct):
    """The answer of `/models`."""

    data: tuple[Section, ...]


class RouterProperties(Struct):
    """The answer of `/props`."""

    role: str | None = None
    max_instances: int = 0
    """Models in memory, after which the one used last longest ago is unloaded; 0: any number."""
    build_info: str | None = None


class _Accepted(Struct):
    success: bool = False


class _Error(Struct):
    message: str = ""


class _Refusal(Struct):
    error: _Error


_T = TypeVar("_T")


class RouterClient:
    """Short calls to the router at `url`; every error is raised as `Failure`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        self._client = httpx.Client(
            base_url=url,
            headers=self.headers,
            timeout=_CALL_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def sections(self, phase: Phase, *, reload: bool = False) -> dict[str, Section]:
        """Return its models by id; `reload` reads its presets again."""
        query = {"reload": "1"} if reload else {}
        answer = self._call("GET", "/models", Sections, phase, params=query)
        return {section.id: section for section in answer.data}

    def properties(self, phase: Phase) -> RouterProperties:
        """Return the properties of the router.

        Raises:
            Failure: The server is not a router.
        """
        found = self._call("GET", "/props", RouterProperties, phase)
        if found.role != "router":
            text = (
                f"the llama-server at {self.url} is not a router: start it with --models-preset,"
                f" or test its one model as openai+{self.url}"
            )
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", final=True)
        return found

    def load(self, section: str) -> None:
        """Start the load of a section."""
        self._call("POST", "/models/load", _Accepted, "load", json={"model": section})

    def unload(self, section: str) -> None:
        """Start the unload of a section."""
        self._call("POST", "/models/unload", _Accepted, "unload", json={"model": section})

    def close(self) -> None:
        self._client.close()

    def _call(
        self,
        method: str,
        path: str,
        kind: type[_T],
        phase: Phase,
        *,
        params: dict[str, str] | None = None,
        json: object = None,
    ) -> _T:
        try:
            response = self._client.request(method, path, params=params, json=json)
        except httpx.HTTPError as error:
            text = f"the router at {self.url} does not answer: {type(error).__name__} {error}"
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect") from error
        if response.status_code in (401, 403):
            text = f"the router at {self.url} refuses the API key in {KEY_VARIABLE}"
            if not self._key:
                text = f"the router at {self.url} needs an API key: set {KEY_VARIABLE}"
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", final=True)
        if response.is_error:
            text = f"the router at {self.url} refused {path}: {self._reason(response)}"
            raise Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError as error:
            text = f"{self.url} is not a router of llama.cpp: {path}: {error}"
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", final=True) from error

    def _reason(self, response: httpx.Response) -> str:
        try:
            words = msgspec.json.decode(response.content, type=_Refusal).error.message
        except msgspec.MsgspecError:
            words = response.text[:200]
        words = words or f"HTTP {response.status_code}"
        return words.replace(self._key, "[API key]") if self._key else words
