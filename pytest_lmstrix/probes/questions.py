"""The questions of `fast` and `full`, and how their answers are graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model, ProbeResult, Prompts, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.answers import (
    is_silence,
    repeated_token,
    whole_numbers,
    without_reasoning,
)

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Instance

    class Loaded(Instance, Protocol):
        """A loaded model."""

        model: Model

        def at_once(self, asks: Sequence[Callable[[Instance], Reply]]) -> list[Reply]:
            """Return the replies to requests that are all sent at once."""


COMPLETION_TOKENS = 8
"""Budget of a raw completion: enough for a number and a few tokens before it."""
CHAT_TOKENS = 1024
"""Default budget of a chat reply: a reasoning model thinks before it answers."""


class Said(Protocol):
    """A reply as far as it is graded."""

    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def stop_reason(self) -> Literal["stop", "length"] | None: ...


class Question(Struct, frozen=True, kw_only=True):
    """One question in both forms, and the whole number that answers it."""

    name: str
    completion: str
    """The text to continue; ends without a space, since most vocabularies put it before a word."""
    chat: str
    expected: int | None
    """`None`: any reply but silence passes."""
    operands: frozenset[int] = frozenset()
    """The numbers in the question, which a chat reply may repeat."""


HELLO = Question(
    name="hello",
    completion="- Say goodbye: Goodbye!\n- Say hello:",
    chat="Say hello",
    expected=None,
)
NINETY_SIX = Question(
    name="ninety-six in digits",
    completion=(
        "forty-seven in digits is 47.\nthirty-two in digits is 32.\n"
        "eighty-one in digits is 81.\nninety-six in digits is"
    ),
    chat="Write ninety-six in digits. Reply with the number only.",
    expected=96,
)
SUM = Question(
    name="2+3",
    completion="1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 =",
    chat="What is 2 + 3? Reply with the number only, in digits.",
    expected=5,
    operands=frozenset({2, 3}),
)
FULL = (NINETY_SIX, SUM)
"""The semantic questions."""

CHAT_NOTE = "chat: a raw completion gives no answer, the chat template does"
"""Note of a result that only the chat template gave."""
THROUGH_TEMPLATE = "through the chat template: "
"""How the line of a detail begins that has the verdict on the other form of the prompts."""
_NOTHING = (Verdict.EMPTY_REPLY, Verdict.NO_ANSWER_IN_BUDGET)
_LEAST_SEVERE_FIRST = (
    Verdict.OK,
    Verdict.NO_ANSWER_IN_BUDGET,
    Verdict.WRONG_ANSWER,
    Verdict.EMPTY_REPLY,
)
_SHOWN = 80
"""Characters of a wrong answer that a detail shows."""


def say_hello(loaded: Loaded) -> ProbeResult:
    """Probe of `fast`: any reply passes but silence and one token repeated throughout."""
    return _in_the_form_that_works(loaded, _say_hello)


def _say_hello(loaded: Loaded, prompts: Prompts) -> ProbeResult:
    reply = ask(loaded, prompts, HELLO, loaded.model.answer_tokens)
    verdict = grade(HELLO, reply, prompts)
    if verdict is not Verdict.OK:
        return ProbeResult(verdict=verdict, detail="said nothing", form=prompts)
    if notes := _repetition_notes([reply]):
        verdict = Verdict.WRONG_ANSWER
        return ProbeResult(verdict=verdict, detail=notes[0], notes=notes, form=prompts)
    return ProbeResult(verdict=verdict, form=prompts)


def answer_questions(loaded: Loaded) -> ProbeResult:
    """Probe of `full`: ask both semantic questions; one right answer passes.

    With several requests at once, each of them is asked both.
    """
    return _in_the_form_that_works(loaded, _answer_questions)


def _answer_questions(loaded: Loaded, prompts: Prompts) -> ProbeResult:
    asks = [
        partial(ask, prompts=prompts, question=question, chat_tokens=loaded.model.answer_tokens)
        for question in FULL
    ]
    requests = loaded.model.load.requests
    if requests > 1:
        rounds = [loaded.at_once([each] * requests) for each in asks]
    else:
        rounds = [[each(loaded)] for each in asks]
    by_request = list(zip(*rounds, strict=True))
    graded = [grade_full(replies, prompts) for replies in by_request]
    verdict, detail = max(graded, key=lambda each: _LEAST_SEVERE_FIRST.index(each[0]))
    if requests > 1 and verdict is not Verdict.OK:
        failed = sum(each is not Verdict.OK for each, _ in graded)
        detail = f"{failed} of {requests} requests at once: {detail}"
    notes = _repetition_notes(by_request[0])
    return ProbeResult(verdict=verdict, detail=detail, notes=notes, form=prompts)


def _in_the_form_that_works(
    loaded: Loaded, probe: Callable[[Loaded, Prompts], ProbeResult]
) -> ProbeResult:
    """Ask once through the chat template where a raw completion gives nothing, or reasoning."""
    found = probe(loaded, loaded.model.prompts)
    if found.form == "chat" or found.verdict not in _NOTHING:
        return found
    try:
        chat = probe(loaded, "chat")
    except Failure as failure:
        if failure.verdict.subject == "host" or failure.verdict.retries:
            raise  # possibly an accident, which shows nothing about the form
        text = f"{THROUGH_TEMPLATE}{failure.verdict}: {failure.text}"
        return replace(found, detail="\n".join(filter(None, (found.detail, text))))
    if chat.verdict is Verdict.OK:
        return replace(chat, notes=(*chat.notes, CHAT_NOTE))
    text = f"{THROUGH_TEMPLATE}{chat.verdict}"
    return replace(found, detail="\n".join(filter(None, (found.detail, text))))


PROBES: dict[str, Callable[[Loaded], ProbeResult]] = {
    "fast": say_hello,
    "full": answer_questions,
}
"""Check -> its probe of a loaded model; `deep` and `limit` have their own."""


def ask(
    instance: Instance, prompts: Prompts, question: Question, chat_tokens: int | None = None
) -> Reply:
    """Ask a loaded model `question`; `chat_tokens` is the budget of a chat reply.

    Raises:
        Failure: The request failed.
    """
    if prompts == "chat":
        messages = (Message(role="user", content=question.chat),)
        return instance.chat(messages, max_tokens=chat_tokens or CHAT_TOKENS)
    return instance.complete(question.completion, max_tokens=COMPLETION_TOKENS)


def grade(question: Question, reply: Said, prompts: Prompts = "completion") -> Verdict:
    """Return `ok`, `wrong_answer`, `empty_reply` or `no_answer_in_budget`.

    The answer of a completion is the first number on its first line, since the model continues
    with examples of its own. The answer of a chat reply is every number on its last line with a
    number other than the operands.
    """
    silent = is_silence(reply.text) and is_silence(reply.reasoning)
    if question.expected is None:
        return Verdict.EMPTY_REPLY if silent else Verdict.OK
    said = without_reasoning(reply.text).splitlines()
    lines = [whole_numbers(line) for line in said if not is_silence(line)]
    if prompts == "chat":
        answers = [answer for line in lines if (answer := set(line) - question.operands)]
        answer = answers[-1] if answers else set()
        cut_short = not answer
    else:
        answer = set(lines[0][:1]) if lines else set()
        cut_short = not lines and not silent
    if answer == {question.expected}:
        return Verdict.OK
    if cut_short and reply.stop_reason == "length":
        return Verdict.NO_ANSWER_IN_BUDGET
    return Verdict.WRONG_ANSWER if lines else Verdict.EMPTY_REPLY


def _repetition_notes(replies: Sequence[Reply]) -> tuple[str, ...]:
    """Return a note if the model only repeats one token, in all of `replies`."""
    tokens = [repeated_token(reply) for reply in replies]
    if not tokens or None in tokens:
        return ()
    shown = ", ".join(ascii(token) for token in dict.fromkeys(tokens) if token)
    return (f"repeats one token throughout ({shown}): its weights may be damaged",)


def grade_full(replies: Sequence[Reply], prompts: Prompts = "completion") -> tuple[Verdict, str]:
    """Return the verdict on the replies to `FULL`, and the wrong answers in one line.

    One right answer is enough: near the limit of memory a single bad sample must not decide the
    verdict. Of two wrong answers, the less severe one gives the verdict.
    """
    grades = [grade(q, reply, prompts) for q, reply in zip(FULL, replies, strict=True)]
    detail = "; ".join(
        f"{question.name}: {verdict}, got {reply.text[:_SHOWN]!a}"
        for question, reply, verdict in zip(FULL, replies, grades, strict=True)
        if verdict is not Verdict.OK
    )
    return min(grades, key=_LEAST_SEVERE_FIRST.index), detail
