"""Deviations from a healthy model, each with a known capacity; they compose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Literal

from msgspec import Struct

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models import brain

Check = Literal["full", "deep"]
ReasoningType = Literal["none", "reasoning", "reasoningStartTag", "reasoningEndTag"]
Piece = tuple[str, ReasoningType]
"""A token of a reply."""
Grant = Callable[[int], int]
"""Maps the requested context to the granted one, tokens."""
NOWHERE = 0
"""The capacity of a model that fails at every size."""


class Load(Struct, frozen=True, kw_only=True):
    """A requested load; `attempt` counts from 1 for the model."""

    context_length: int
    needed_bytes: int
    attempt: int


class Prompt(Struct, frozen=True, kw_only=True):
    """A requested prediction; `attempt` counts from 1 for the model."""

    tokens: Sequence[str]
    context_length: int
    attempt: int
    chat: bool
    thinking: bool = True
    thinking_budget: int | None = None
    """Tokens after which the engine ends its thoughts."""


class Behaviour(Struct, frozen=True, kw_only=True):
    """A healthy model; subclasses override what differs."""

    def capacity(self, check: Check, grant: Grant) -> int | None:
        """The largest working context, tokens; `None` for any."""
        return None

    def grant(self, context_length: int) -> int:
        """Return the granted context for `context_length`."""
        return context_length

    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The load settings that are in force, and reported, instead of these."""
        return settings

    def check_load(self, load: Load) -> None:
        """Fail the load by raising `Refused`."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Fail the prediction by raising `Refused`."""

    def counted(self, tokens: Sequence[str]) -> Sequence[str]:
        """Return the tokens of a prompt that the engine accepts and counts."""
        return tokens

    def visible(self, tokens: Sequence[str]) -> Sequence[str]:
        """Return the tokens that the model sees of those accepted."""
        return tokens

    def reply(self, prompt: Prompt, reply: str) -> str:
        """Return the text instead of `reply`."""
        return reply

    def thoughts(self, prompt: Prompt) -> tuple[Piece, ...]:
        """Return the reasoning before the reply."""
        return ()

    def speed(self, context_length: int, tokens_per_second: float) -> float:
        """Return the decode speed at this context length."""
        return tokens_per_second


def _asked(granted: int, grant: Grant) -> int:
    """The largest requested context that is granted at most `granted`."""
    return next((n for n in range(granted, 0, -1) if grant(n) <= granted), NOWHERE)


class SeesLast(Behaviour, frozen=True, tag=True):
    """Forgets the beginning: sees only the last `tokens`, but counts all."""

    tokens: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.tokens if check == "deep" else None

    def visible(self, tokens: Sequence[str]) -> Sequence[str]:
        return tokens[-self.tokens :]


class SeesFirst(Behaviour, frozen=True, tag=True):
    """Sees only the first `tokens`, but counts all."""

    tokens: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.tokens

    def visible(self, tokens: Sequence[str]) -> Sequence[str]:
        return tokens[: self.tokens]


class ForgetsMiddle(Behaviour, frozen=True, tag=True):
    """Sees only the first `start` and the last `end` tokens."""

    start: int
    end: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.start + self.end if check == "deep" else None

    def visible(self, tokens: Sequence[str]) -> Sequence[str]:
        if len(tokens) <= self.start + self.end:
            return tokens
        return [*tokens[: self.start], *tokens[len(tokens) - self.end :]]


class Confuses(Behaviour, frozen=True, tag=True):
    """Takes a fact for another of the same wording, or loses a link, in more tokens than these."""

    resists: int
    follows: int

    def reply(self, prompt: Prompt, reply: str) -> str:
        text = "".join(prompt.tokens)
        if len(prompt.tokens) > self.follows and brain.linked(text):
            return " not known."
        return (len(prompt.tokens) > self.resists and brain.rival(text)) or reply


class CutsPrompt(Behaviour, frozen=True, tag=True):
    """Cuts a prompt silently to its last `tokens`, and counts only those."""

    tokens: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.tokens if check == "deep" else None

    def counted(self, tokens: Sequence[str]) -> Sequence[str]:
        return tokens[-self.tokens :]


class GrantsAtMost(Behaviour, frozen=True, tag=True):
    """Loads with at most `tokens` of context."""

    tokens: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        # Padding after it compensates for a little.
        return next(n for n in count(self.tokens) if grant(n + 1) <= n)

    def grant(self, context_length: int) -> int:
        return min(context_length, self.tokens)


class GrantsMore(Behaviour, frozen=True, tag=True):
    """Grants `extra` tokens on top, up to a multiple of `multiple_of`, and `at_least` so many."""

    extra: int = 0
    multiple_of: int = 1
    at_least: int = 0

    def grant(self, context_length: int) -> int:
        granted = -(-(context_length + self.extra) // self.multiple_of) * self.multiple_of
        return max(granted, self.at_least)


class SharesContext(Behaviour, frozen=True, tag=True):
    """Divides the context among `slots` requests, whatever is asked; it may not be `reported`."""

    slots: int = 4
    reported: bool = True

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE if check == "deep" else None

    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self.reported:
            return settings
        shared = {"llm.load.numParallelSessions": self.slots, "llm.load.useUnifiedKvCache": False}
        return settings | shared


class SharesWindow(Behaviour, frozen=True, tag=True):
    """Answers `slots` long prompts only at once, and has room for `windows` contexts for them all.

    Where they need more, they are refused, or `cuts` each to its share.
    """

    slots: int = 4
    windows: float = 1.0
    cuts: bool = False


class Gibberish(Behaviour, frozen=True, tag=True):
    """Replies with gibberish above `above` tokens, granted or actually filled."""

    above: int
    measure: Literal["granted", "filled"] = "granted"

    def capacity(self, check: Check, grant: Grant) -> int | None:
        if self.measure == "granted":
            return _asked(self.above, grant)
        return self.above if check == "deep" else None

    def reply(self, prompt: Prompt, reply: str) -> str:
        size = prompt.context_length if self.measure == "granted" else len(prompt.tokens)
        return " ^~ ,,; zqx// zqx// ~~ ,,; glorp" if size > self.above else reply


class OutOfMemory(Behaviour, frozen=True, tag=True):
    """Out of memory above `above` tokens, at the load or only at a prediction."""

    above: int
    at: Literal["load", "predict"] = "load"

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.above if self.at == "load" else _asked(self.above, grant)

    def check_load(self, load: Load) -> None:
        if self.at == "load" and load.context_length > self.above:
            raise Refused(errors.cannot_allocate(load.needed_bytes))

    def check_prompt(self, prompt: Prompt) -> None:
        if self.at == "predict" and prompt.context_length > self.above:
            raise Refused(errors.insufficient_memory())


class Guardrail(Behaviour, frozen=True, tag=True):
    """Refused by the memory guardrail above `above` tokens."""

    above: int

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.above

    def check_load(self, load: Load) -> None:
        if load.context_length > self.above:
            raise Refused(errors.guardrail(load.needed_bytes))


class Crashes(Behaviour, frozen=True, tag=True):
    """The engine dies the first `times` times, at the load or at a prediction."""

    at: Literal["load", "predict"] = "load"
    times: int = 1
    exit_code: int | None = 6

    def check_load(self, load: Load) -> None:
        if self.at == "load" and load.attempt <= self.times:
            raise Refused(errors.load_crashed(self.exit_code))

    def check_prompt(self, prompt: Prompt) -> None:
        if self.at == "predict" and prompt.attempt <= self.times:
            raise Refused(errors.prediction_crashed(self.exit_code), fatal=True)


class CrashesAbove(Behaviour, frozen=True, tag=True):
    """The engine dies above `above` tokens, each time, at the load or only at a prediction."""

    above: int
    at: Literal["load", "predict"] = "load"

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return self.above if self.at == "load" else _asked(self.above, grant)

    def check_load(self, load: Load) -> None:
        if self.at == "load" and load.context_length > self.above:
            raise Refused(errors.load_crashed(6))

    def check_prompt(self, prompt: Prompt) -> None:
        if self.at == "predict" and prompt.context_length > self.above:
            raise Refused(errors.prediction_crashed(6), fatal=True)


class Corrupted(Behaviour, frozen=True, tag=True):
    """A broken file (`load`), or a corrupted cache that crashes the instance (`predict`)."""

    at: Literal["load", "predict"] = "predict"

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE

    def check_load(self, load: Load) -> None:
        if self.at == "load":
            raise Refused(errors.file_corrupted())

    def check_prompt(self, prompt: Prompt) -> None:
        if self.at == "predict":
            raise Refused(errors.cache_corrupted(), fatal=True)


class MissingFromDisk(Behaviour, frozen=True, tag=True):
    """Listed, but its file is gone: "Model not found" at the load."""

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE


class Unsupported(Behaviour, frozen=True, tag=True):
    """No runtime supports its architecture."""

    architecture: str = "kimi-linear"

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE

    def check_load(self, load: Load) -> None:
        raise Refused(errors.unknown_architecture(self.architecture))


class ChatOnly(Behaviour, frozen=True, tag=True):
    """Answers through the chat template; a raw completion gets `text`."""

    text: str = ""

    def reply(self, prompt: Prompt, reply: str) -> str:
        return reply if prompt.chat else self.text


class FailsInChat(Behaviour, frozen=True, tag=True):
    """Every chat fails with `text`; raw completions work."""

    text: str

    def check_prompt(self, prompt: Prompt) -> None:
        if prompt.chat:
            raise Refused(errors.ServerError(title=self.text))


class FailsToLoad(Behaviour, frozen=True, tag=True):
    """Every load fails with `text`, or the first `times`."""

    text: str
    times: int | None = None

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE if self.times is None else None

    def check_load(self, load: Load) -> None:
        if self.times is None or load.attempt <= self.times:
            raise Refused(errors.ServerError(title=self.text))


class Reasons(Behaviour, frozen=True, tag=True):
    """Reasons for `tokens` before it answers: in chats, and optionally in completions."""

    tokens: int = 100
    in_completions: bool = False
    can_refrain: bool = False
    """Whether its template leaves the thinking out where that is asked."""
    parsed: bool = True
    """Whether the engine marks reasoning; otherwise only the tags in the text do."""

    def thoughts(self, prompt: Prompt) -> tuple[Piece, ...]:
        silent = self.can_refrain and not prompt.thinking
        if silent or (not prompt.chat and not self.in_completions):
            return ()
        tokens = min(self.tokens, self.tokens if (b := prompt.thinking_budget) is None else b)
        pieces: tuple[Piece, ...] = (
            ("<think>", "reasoningStartTag"),
            *((" hmm", "reasoning"),) * tokens,
            ("</think>", "reasoningEndTag"),
        )
        return pieces if self.parsed else tuple((text, "none") for text, _ in pieces)


class Echoes(Behaviour, frozen=True, tag=True):
    """A base model that only repeats the last line of its prompt."""

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE

    def reply(self, prompt: Prompt, reply: str) -> str:
        return "".join(prompt.tokens[-100:]).rstrip().split("\n")[-1]


class Says(Behaviour, frozen=True, tag=True):
    """Gives the same reply to every prompt, regardless of the budget; see `hostile`."""

    text: str = ""
    fragment_characters: int = 65_536
    """Sent at once."""

    def capacity(self, check: Check, grant: Grant) -> int | None:
        return NOWHERE

    def reply(self, prompt: Prompt, reply: str) -> str:
        return self.text


class CallsTool(Behaviour, frozen=True, tag=True):
    """Calls this tool if there are any; `arguments` are the text as the model writes it."""

    name: str = ""
    arguments: str = "{}"
    after: int = 0
    """The results of tools in the history at which it calls."""
    when: str = ""
    """A text that the prompt must have."""


class Admits(Behaviour, frozen=True, tag=True):
    """Says that it does not know instead of inventing an answer."""

    def reply(self, prompt: Prompt, reply: str) -> str:
        return "I don't know." if reply == brain.FALLBACK else reply


ToolFault = Literal["fenced", "in_reasoning", "wrong_name", "not_an_object", "cut_off", "none"]


class UsesTools(Behaviour, frozen=True, tag=True):
    """Calls the tools that a request is about; see `asked`."""

    fault: ToolFault | None = None
    """What is wrong with each call; `none`: it makes none, and talks about it."""
    most: int = 8
    """Calls in one reply."""
    eager: bool = False
    """Whether it calls a tool even where none fits."""


class SeesStripes(Behaviour, frozen=True, tag=True):
    """Names the colours of horizontal stripes in the last picture; it cannot read."""


class IgnoresSchema(Behaviour, frozen=True, tag=True):
    """Answers as without a schema: its engine takes one and forgets it."""


class SlowDecode(Behaviour, frozen=True, tag=True):
    """Reports a slower decode above `above` tokens, without waiting."""

    above: int
    tokens_per_second: float = 0.3

    def speed(self, context_length: int, tokens_per_second: float) -> float:
        return self.tokens_per_second if context_length > self.above else tokens_per_second


class Embedded(Behaviour, frozen=True, tag=True):
    """Answers with a real llama.cpp that runs the GGUF file at `path`."""

    path: str


AnyBehaviour = (
    SeesLast
    | Admits
    | Confuses
    | CallsTool
    | UsesTools
    | SeesStripes
    | IgnoresSchema
    | ForgetsMiddle
    | CutsPrompt
    | GrantsAtMost
    | GrantsMore
    | SharesContext
    | SharesWindow
    | Gibberish
    | OutOfMemory
    | Guardrail
    | Crashes
    | CrashesAbove
    | Corrupted
    | MissingFromDisk
    | Unsupported
    | FailsInChat
    | FailsToLoad
    | ChatOnly
    | Reasons
    | Echoes
    | Says
    | SlowDecode
    | Embedded
    | SeesFirst
)
