"""What `capability` asks a loaded model for, and how the answers are graded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from pytest_lmstrix.core.types import Model, ToolCall
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Tool, Unable
from pytest_lmstrix.probes.answers import is_silence, without_reasoning
from pytest_lmstrix.probes.capability.pictures import COLOURS, number_picture, stripes_picture
from pytest_lmstrix.probes.questions import CHAT_TOKENS, HELLO, SUM, Question, Said, grade

SHOWN = 80
"""Characters of an answer in a detail."""


class ChatAnswer(Said, Protocol):
    """A reply with graded tool calls, judged by the schema of its request."""

    @property
    def tool_calls(self) -> Sequence[ToolCall]: ...
    @property
    def schema_error(self) -> str | None: ...
    @property
    def enforced(self) -> bool: ...


class Chats(Protocol):
    """A loaded model that takes the optional arguments of a chat."""

    model: Model

    def chat(
        self,
        messages: str,
        *,
        max_tokens: int,
        schema: object = None,
        tools: Sequence[Tool] = (),
        images: Sequence[bytes] = (),
        thinking: bool | None = None,
    ) -> ChatAnswer:
        """Answer a message.

        Raises:
            Unable: The engine or the model cannot do it.
            Failure: The engine failed.
        """


class Trouble(Struct, frozen=True):
    """Why an answer does not show an ability."""

    words: str
    verdict: Verdict = Verdict.WRONG_ANSWER


Way = Callable[[Chats], Trouble | None]
"""Asks for something, and returns what is wrong with the answer."""


class Ability(NamedTuple):
    """One capability."""

    steps: Mapping[str, tuple[Way, ...]]
    """What must be shown -> ways to ask for it; one right answer is enough."""
    easy: Question
    """The control: the same without the capability."""


def budget(loaded: Chats) -> int:
    """Return the tokens of an answer, its reasoning included."""
    return loaded.model.answer_tokens or CHAT_TOKENS


def trouble_of(question: Question, reply: ChatAnswer) -> Trouble | None:
    """Return what is wrong with the answer to a question with a known number."""
    verdict = grade(question, reply, "chat")
    return None if verdict is Verdict.OK else Trouble(f"got {_said(reply)}", verdict)


def _said(reply: ChatAnswer) -> str:
    return f"{(reply.text or reply.reasoning)[:SHOWN]!a}"


def _missing(what: str, reply: ChatAnswer) -> Trouble:
    """Return the trouble of a reply without what was asked for."""
    if is_silence(reply.text):
        if reply.stop_reason == "length":
            return Trouble(f"{what} within the budget", Verdict.NO_ANSWER_IN_BUDGET)
        if is_silence(reply.reasoning):
            return Trouble(f"{what}, and no text", Verdict.EMPTY_REPLY)
    return Trouble(f"{what}, got {_said(reply)}")


# --- JSON by a schema

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "weather": {"type": "string", "enum": ["sunny", "rainy", "unknown"]},
        "is_certain": {"type": "boolean"},
    },
    "required": ["weather", "is_certain"],
    "additionalProperties": False,
}
"""Bounded, so that every answer that keeps it fits in the budget."""
_PROSE = "Write one sentence about the weather."
"""Does not ask for JSON, so an answer in JSON shows that the schema was enforced."""


def _keeps_the_schema(loaded: Chats) -> Trouble | None:
    reply = loaded.chat(_PROSE, max_tokens=budget(loaded), schema=WEATHER_SCHEMA)
    if not reply.enforced:
        raise Unable("the engine cannot be made to keep a schema", option="schema")
    if not reply.schema_error:
        return None
    error = f"the answer does not keep the schema ({reply.schema_error[:SHOWN]})"
    return _missing(error, reply)


# --- tools

TOOLS = (
    Tool(
        name="set_heating",
        description="Set the heating of one room.",
        parameters={
            "type": "object",
            "properties": {
                "room": {"type": "string", "enum": ["kitchen", "bedroom", "bathroom"]},
                "degrees": {"type": "integer", "description": "Degrees Celsius."},
            },
            "required": ["room", "degrees"],
        },
    ),
    Tool(
        name="play_music",
        description="Play music of one artist.",
        parameters={
            "type": "object",
            "properties": {"artist": {"type": "string"}},
            "required": ["artist"],
        },
    ),
)
_Heating = dict[str, int]
"""Room -> degrees."""


def _calls(request: str, expected: _Heating) -> Way:
    """Return a way to ask for calls of `set_heating`, each with its arguments."""

    def ask(loaded: Chats) -> Trouble | None:
        reply = loaded.chat(request, max_tokens=budget(loaded), tools=TOOLS)
        if not reply.tool_calls:
            return _missing("no tool was called", reply)
        for call in reply.tool_calls:
            if call.fault is not None:
                return Trouble(f"{call.fault}: {call.detail}, got {_shown(call)}")
        wanted = [_of_heating(room, degrees) for room, degrees in sorted(expected.items())]
        if sorted(map(_shown, reply.tool_calls)) != sorted(map(_shown, wanted)):
            got = ", ".join(map(_shown, reply.tool_calls))
            return Trouble(f"wanted {', '.join(map(_shown, wanted))}, got {got}")
        return None

    return ask


def _of_heating(room: str, degrees: int) -> ToolCall:
    return ToolCall(name="set_heating", arguments={"room": room, "degrees": degrees})


def _shown(call: ToolCall) -> str:
    arguments = call.arguments
    if isinstance(arguments, dict):
        arguments = dict(sorted(arguments.items(), key=lambda pair: str(pair[0])))
    return f"{call.name} {arguments!a}"[: 2 * SHOWN]


def _calls_none(request: str) -> Way:
    """Return a way to ask for something that no tool is for."""

    def ask(loaded: Chats) -> Trouble | None:
        reply = loaded.chat(request, max_tokens=budget(loaded), tools=TOOLS)
        if reply.tool_calls:
            return Trouble(f"got {', '.join(map(_shown, reply.tool_calls))}")
        return _missing("no answer", reply) if is_silence(reply.text) else None

    return ask


# --- pictures

_NUMBER = Question(
    name="number in a picture",
    completion="",
    chat="Which number is in this picture? Reply with the number only, in digits.",
    expected=472,
)
_STRIPES = ("black", "blue", "yellow")
_ASK_STRIPES = (
    "This picture has three horizontal stripes. Name their colours from top to bottom, and nothing"
    " else."
)
_COLOUR = re.compile(rf"\b(?:{'|'.join(COLOURS)})\b", re.IGNORECASE)


def _reads_the_number(loaded: Chats) -> Trouble | None:
    picture = number_picture(str(_NUMBER.expected))
    reply = loaded.chat(_NUMBER.chat, max_tokens=budget(loaded), images=[picture])
    return trouble_of(_NUMBER, reply)


def _names_the_stripes(loaded: Chats) -> Trouble | None:
    picture = stripes_picture(_STRIPES)
    reply = loaded.chat(_ASK_STRIPES, max_tokens=budget(loaded), images=[picture])
    named = [each.lower() for each in _COLOUR.findall(without_reasoning(reply.text))]
    if named == list(_STRIPES):
        return None
    return _missing(f"the picture has stripes in {', '.join(_STRIPES)}", reply)


# --- thinking

_RIDDLES = (
    SUM.chat,
    "A farmer has 17 sheep, and all but 9 run away. How many are left? Think about it first.",
)


def _thinks(riddle: str) -> Way:
    def ask(loaded: Chats) -> Trouble | None:
        reply = loaded.chat(riddle, max_tokens=budget(loaded), thinking=True)
        return None if _has_reasoning(reply) else _missing("it does not think", reply)

    return ask


def _answers_at_once(loaded: Chats) -> Trouble | None:
    reply = loaded.chat(SUM.chat, max_tokens=budget(loaded), thinking=False)
    if _has_reasoning(reply):
        return Trouble(f"it still thinks, got {(reply.reasoning or reply.text)[:SHOWN]!a}")
    return _missing("no answer", reply) if is_silence(reply.text) else None


def _has_reasoning(reply: ChatAnswer) -> bool:
    return not is_silence(reply.reasoning) or without_reasoning(reply.text) != reply.text


def _easy(name: str, chat: str, expected: int) -> Question:
    return Question(name=name, completion="", chat=chat, expected=expected)


_EASY_CALL = _easy(
    "degrees in digits",
    "Someone says: Set the heating of the kitchen to twenty-one degrees. How many degrees are that"
    " in digits? Reply with the number only.",
    21,
)
_EASY_PICTURE = _easy(
    "number on a sign",
    "A picture shows a sign, and on it the number forty-seven. Which number is that in digits?"
    " Reply with the number only.",
    47,
)

SCHEMA_ABILITY = "schema"
"""Engines claim it, not models: by taking a schema."""
TOOLS_ABILITY, PARALLEL_ABILITY = "tools", "parallel_tools"
ABILITIES = {
    SCHEMA_ABILITY: Ability({"JSON by a schema": (_keeps_the_schema,)}, HELLO),
    TOOLS_ABILITY: Ability(
        {
            "one call": (
                _calls("Set the heating of the kitchen to 21 degrees.", {"kitchen": 21}),
                _calls(
                    "It is cold in the bedroom. Use the tool to set its heating to 18 degrees.",
                    {"bedroom": 18},
                ),
            ),
            "no call where no tool fits": (_calls_none(SUM.chat),),
        },
        _EASY_CALL,
    ),
    PARALLEL_ABILITY: Ability(
        {
            "two calls in one reply": (
                _calls(
                    "Set the heating of the kitchen to 21 degrees, and that of the bedroom to 18"
                    " degrees.",
                    {"kitchen": 21, "bedroom": 18},
                ),
            )
        },
        _EASY_CALL,
    ),
    "vision": Ability(
        {"description of a picture": (_reads_the_number, _names_the_stripes)}, _EASY_PICTURE
    ),
    "thinking": Ability(
        {
            "thinking switched on": tuple(map(_thinks, _RIDDLES)),
            "thinking switched off": (_answers_at_once,),
        },
        SUM,
    ),
}
"""Name as in listings and manifests -> how it is shown."""
