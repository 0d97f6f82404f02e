"""Creates what answers for an instance: the simulation, or a real llama.cpp that has to start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from pytest_lmstrix.core import types
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Instance
from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused, ServerError
from tests.standin.lmstudio.models import brain
from tests.standin.lmstudio.models.behaviours import Embedded, Piece
from tests.standin.lmstudio.models.minds import Mind, Prediction, Request, StandInMind
from tests.standin.lmstudio.models.model import StandInModel

_UNLIMITED = 4096
"""The token limit of a prediction that requests none."""


async def load_mind(model: StandInModel, context_length: int) -> Mind:
    """Load what answers for an instance of `model`, with the granted context.

    Raises:
        Refused: llama.cpp does not load it.
    """
    context_length = model.grant(context_length)
    for behaviour in model.behaviours:
        if isinstance(behaviour, Embedded):
            return await _load_embedded(model, behaviour.path, context_length)
    return StandInMind(model, context_length)


class EmbeddedMind:
    """Answers with a llama.cpp that runs in a child process."""

    blocks = True

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.context_length = instance.context_length

    def tokenize(self, text: str) -> Sequence[int]:
        # The protocols of the engines know counts only.
        return range(self._instance.count_tokens(text))

    def predict(self, request: Request) -> Prediction:
        limit = request.max_tokens or _UNLIMITED
        text = "".join(message.text for message in request.messages)
        try:
            if request.chat:
                chat = [
                    types.Message(role=m.role, content=m.text)  # type: ignore[arg-type]
                    for m in request.messages
                ]
                reply = self._instance.chat(chat, max_tokens=limit)
            else:
                reply = self._instance.complete(
                    text, max_tokens=limit, temperature=request.temperature
                )
        except Failure as failure:
            if failure.verdict is Verdict.CONTEXT_TOO_LARGE:
                tokens = len(self.tokenize(text))
                raise Refused(errors.prompt_too_long(tokens, self.context_length)) from failure
            crashed = failure.verdict is Verdict.CRASHED
            raise Refused(ServerError(title=failure.text), fatal=crashed) from failure
        pieces: list[Piece] = [(token, "reasoning") for token in brain.tokenize(reply.reasoning)]
        pieces += [(token, "none") for token in brain.tokenize(reply.text)]
        return Prediction(
            pieces=tuple(pieces),
            sent_tokens=reply.prompt_tokens or 0,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_prompt_tokens or 0,
            predicted_tokens=reply.completion_tokens or len(pieces),
            stop_reason="eosFound" if reply.stop_reason == "stop" else "maxPredictedTokensReached",
            ttft_seconds=reply.ttft_seconds or 0.0,
            tokens_per_second=reply.decode_tokens_per_second or 1.0,
        )

    def close(self) -> None:
        self._instance.unload()


class _Silent:
    """Ignore the progress of the embedded engine: its load takes less than a second."""

    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...


async def _load_embedded(model: StandInModel, path: str, context_length: int) -> Mind:
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    abandoned = threading.Event()
    # Several threads are very slow on a busy machine.
    settings = types.LoadSettings(threads=1)
    entry = types.Model(id=model.key, engine="llamacpp", source=path, load=settings)

    def load() -> EmbeddedMind:
        mind = EmbeddedMind(LlamaCppEngine().load(entry, context_length, _Silent()))
        if abandoned.is_set():
            mind.close()
        return mind

    try:
        return await asyncio.to_thread(load)
    except asyncio.CancelledError:
        abandoned.set()
        raise
    except Failure as failure:
        raise Refused(ServerError(title="Failed to load model", cause=failure.text)) from failure
