"""What answers for an instance: `brain` with a model's behaviours, or a real llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models import brain
from tests.standin.lmstudio.models.asked import Asked, Called
from tests.standin.lmstudio.models.behaviours import Piece, Prompt, Says
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.lmstudio.models.window import window_of

_END_OF_TURN = "<|end|>\n"
_ASSISTANT = "<|assistant|>\n"


class Message(Struct, frozen=True, kw_only=True):
    """A message of a history with its parts joined."""

    role: str
    text: str
    called: Called | None = None
    """Of a tool: the call that has this result."""


class Request(Struct, frozen=True, kw_only=True):
    """A requested prediction."""

    messages: tuple[Message, ...]
    chat: bool
    """Whether the chat template is applied."""
    max_tokens: int | None
    temperature: float
    overflow_policy: str
    stop_strings: tuple[str, ...]
    attempt: int
    """Counts from 1 for the model."""
    thinking: bool = True
    thinking_budget: int | None = None
    asked: Asked = Asked()


class Prediction(Struct, frozen=True, kw_only=True):
    """A prediction, computed before the first piece is sent."""

    pieces: tuple[Piece, ...]
    """One per fragment."""
    sent_tokens: int
    """Prompt tokens before truncation."""
    prompt_tokens: int | None
    cached_tokens: int
    predicted_tokens: int
    stop_reason: str
    ttft_seconds: float
    tokens_per_second: float
    calls: tuple[Called, ...] = ()


class Mind(Protocol):
    """What answers for an instance."""

    @property
    def blocks(self) -> bool:
        """Whether it is slow enough to need a thread."""

    @property
    def context_length(self) -> int:
        """Granted context, tokens."""

    def tokenize(self, text: str) -> Sequence[int]:
        """Count the tokens of `text` without special ones."""

    def predict(self, request: Request) -> Prediction:
        """Compute a prediction.

        Raises:
            Refused: It fails.
        """

    def close(self) -> None:
        """Release its resources."""


def embed(
    model: StandInModel, text: str, context_length: int, *, cut: bool = False
) -> tuple[list[float], int]:
    """Return the vector of `text`, and its tokens as counted.

    Raises:
        Refused: It is longer than the context, and is not to be `cut`.
    """
    taken: Sequence[str] = brain.tokenize(text)
    for behaviour in model.behaviours:
        taken = behaviour.counted(taken)
    room = context_length - model.bos_tokens
    if len(taken) > room and not (cut or model.cuts_texts):
        raise Refused(errors.text_too_long(len(taken) + model.bos_tokens, context_length))
    taken = seen = taken[:room]
    for behaviour in model.behaviours:
        seen = behaviour.visible(seen)
    return brain.embed(seen, model.dimension), len(taken) + model.bos_tokens


def render(messages: Sequence[Message]) -> str:
    """The chat template of every stand-in model."""
    turns = "".join(f"<|{m.role}|>\n{m.text}{_END_OF_TURN}" for m in messages)
    return turns + _ASSISTANT


class StandInMind:
    """Answers with `brain`; keeps its last prompt like a KV cache."""

    def __init__(self, model: StandInModel, context_length: int) -> None:
        self.context_length = context_length
        self.slots = 1
        """Requests that share the context, each with a part of it."""
        self._model = model
        self._cache: Sequence[str] = ()
        self._window = window_of(model, context_length)

    @property
    def blocks(self) -> bool:
        """Whether a prompt waits for others."""
        return self._window is not None

    def tokenize(self, text: str) -> Sequence[int]:
        return [brain.token_id(token) for token in brain.tokenize(text)]

    def predict(self, request: Request) -> Prediction:
        text = render(request.messages) if request.chat else _joined(request.messages)
        sent = brain.tokenize(text)
        taken: Sequence[str] = sent if self._window is None else self._window.taken(sent)
        bos = self._model.bos_tokens
        for behaviour in self._model.behaviours:
            taken = behaviour.counted(taken)
        room = self.context_length // self.slots
        if len(taken) + bos >= room:
            if request.overflow_policy != "rollingWindow":
                raise Refused(errors.prompt_too_long(len(taken) + bos, room))
            taken = taken[-(room * 3 // 4) :]
        prompt = Prompt(
            tokens=taken,
            context_length=self.context_length,
            attempt=request.attempt,
            chat=request.chat,
            thinking=request.thinking,
            thinking_budget=request.thinking_budget,
        )
        for behaviour in self._model.behaviours:
            behaviour.check_prompt(prompt)
        cached = brain.shared_prefix(taken, self._cache)
        self._cache = taken
        pieces, stop_reason = self._pieces(prompt, request)
        speed = self._model.decode_tokens_per_second
        for behaviour in self._model.behaviours:
            speed = behaviour.speed(self.context_length, speed)
        # At least one token is processed again, as in llama.cpp.
        cached = min(cached, max(len(taken) - 1, 0))
        fresh = len(taken) + bos - cached
        return Prediction(
            pieces=pieces,
            sent_tokens=len(sent) + bos,
            prompt_tokens=len(taken) + bos,
            cached_tokens=cached,
            predicted_tokens=len(pieces),
            stop_reason=stop_reason,
            ttft_seconds=fresh / self._model.prefill_tokens_per_second,
            tokens_per_second=speed,
            calls=request.asked.calls(text, self._model.behaviours, len(results_in(request))),
        )

    def close(self) -> None:
        self._cache = ()

    def _pieces(self, prompt: Prompt, request: Request) -> tuple[tuple[Piece, ...], str]:
        seen = prompt.tokens
        for behaviour in self._model.behaviours:
            seen = behaviour.visible(seen)
        text = "".join(seen)
        if request.chat:
            text = text.removesuffix(_ASSISTANT).removesuffix(_END_OF_TURN)
        last = request.messages[-1].called
        reply = brain.answer(text) if last is None else " ".join(results_in(request))
        thoughts: tuple[Piece, ...] = ()
        for behaviour in self._model.behaviours:
            reply = behaviour.reply(prompt, reply)
            thoughts += behaviour.thoughts(prompt)
        reply = request.asked.reply(text, reply, request.temperature, self._model.behaviours)
        says = [each for each in self._model.behaviours if isinstance(each, Says)]
        if says:
            size = says[-1].fragment_characters
            chunks = (reply[at : at + size] for at in range(0, len(reply), size))
            return tuple((chunk, "none") for chunk in chunks), "eosFound"
        stop_reason = "eosFound"
        for stop in request.stop_strings:
            if stop and stop in reply:
                reply, stop_reason = reply.split(stop)[0], "stopStringFound"
        pieces = (*thoughts, *((token, "none") for token in brain.tokenize(reply)))
        room = self.context_length - len(prompt.tokens) - self._model.bos_tokens
        if request.max_tokens is not None and len(pieces) > request.max_tokens <= room:
            return pieces[: request.max_tokens], "maxPredictedTokensReached"
        if len(pieces) > room:
            return pieces[:room], "contextLengthReached"
        return pieces, stop_reason


def results_in(request: Request) -> list[str]:
    """Return what each result of a tool says, with its call."""
    return [
        f"{message.called.name} of {message.called.arguments} gives {message.text}."
        for message in request.messages
        if message.called is not None
    ]


def _joined(messages: Sequence[Message]) -> str:
    return "".join(message.text for message in messages)
