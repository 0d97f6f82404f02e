"""Grading of `deep`: control, recall and cut prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_lmstrix.core.types import Message, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.haystack import DEPTHS, Haystack, Needle
from pytest_lmstrix.probes.recall import Control, ask_control, ask_filled, grade_recall, judge_deep

HAYSTACK = Haystack(
    size=100,
    seed=1,
    prose="The hay is dry.",
    needles=tuple(
        Needle(depth=depth, opening=f"The {kind} is", answer=kind.upper())
        for depth, kind in zip(DEPTHS, ("ant", "bee", "cow", "dog", "elk"), strict=True)
    ),
    prompt_tokens=(40, 41, 42, 43, 44),
)
FULL_MARKS = Control(score=5)


class Reader:
    """An instance that recalls facts from its prompt, except those with certain openings."""

    context_length = 100

    def __init__(self, *forgotten: str, special_tokens: int = 0) -> None:
        self.forgotten = forgotten
        self.special_tokens = special_tokens
        self.prompts: list[str] = []

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """The answer to the last line of the prompt."""
        self.prompts.append(prompt)
        kind = prompt.split()[-2]
        return Reply(
            text=" gone" if kind in self.forgotten else f" {kind.upper()}.",
            prompt_tokens=len(prompt) + self.special_tokens,
        )

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0
    ) -> Reply:
        """Not used by these tests."""
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """The number of characters."""
        return len(text)

    def unload(self) -> None:
        """Do nothing."""


def replies(*texts: str, prompt_tokens: int | None = None) -> tuple[Reply, ...]:
    return tuple(Reply(text=text, prompt_tokens=prompt_tokens) for text in texts)


@pytest.mark.parametrize(
    ("control", "recalled", "verdict"),
    [
        (5, 5, Verdict.OK),
        (5, 4, Verdict.RECALL_FAILED),
        (4, 4, Verdict.OK),
        (4, 3, Verdict.RECALL_FAILED),
        (3, 3, Verdict.OK),
        (3, 2, Verdict.RECALL_FAILED),
        (2, 5, Verdict.INCONCLUSIVE),
        (0, 0, Verdict.INCONCLUSIVE),
    ],
)
def test_pass_mark_is_relative_to_the_control(
    control: int, recalled: int, verdict: Verdict
) -> None:
    recall = {f"{depth:g}": n < recalled for n, depth in enumerate(DEPTHS)}
    assert judge_deep(control, recall)[0] is verdict


def test_the_detail_names_the_failed_depths() -> None:
    recall = grade_recall(HAYSTACK, FULL_MARKS, replies(" ANT.", "", " cow", " CAT", " ELK"))
    assert recall.verdict is Verdict.RECALL_FAILED
    assert recall.detail == "does not recall what is hidden at a depth of 25%, 75%"
    assert recall.recalled == {
        "0.05": True,
        "0.25": False,
        "0.5": True,
        "0.75": False,
        "0.95": True,
    }


def test_a_cut_prompt_is_not_a_recall_failure() -> None:
    recall = grade_recall(HAYSTACK, FULL_MARKS, replies("", "", "", "", "", prompt_tokens=20))
    assert recall.verdict is Verdict.PROMPT_TRUNCATED
    assert recall.detail == "sent 40 prompt tokens, 20 arrived"


def test_special_tokens_do_not_look_like_a_cut() -> None:
    said = replies("ANT", "BEE", "COW", "DOG", "ELK", prompt_tokens=45)
    assert grade_recall(HAYSTACK, FULL_MARKS, said).verdict is Verdict.OK


@pytest.mark.parametrize(("special_tokens", "measured"), [(0, 0), (1, 1), (-1, -1), (-40, -4)])
def test_the_template_overhead_is_measured(special_tokens: int, measured: int) -> None:
    control = ask_control(Reader(special_tokens=special_tokens), HAYSTACK)
    assert control == Control(score=5, special_tokens=measured)


@pytest.mark.parametrize(
    ("special_tokens", "arrived", "verdict"),
    [
        (1, 45, Verdict.OK),
        (1, 44, Verdict.PROMPT_TRUNCATED),
        (-1, 43, Verdict.OK),
        (-1, 42, Verdict.PROMPT_TRUNCATED),
    ],
)
def test_special_tokens_hide_no_cut(special_tokens: int, arrived: int, verdict: Verdict) -> None:
    control = Control(score=5, special_tokens=special_tokens)
    said = replies("ANT", "BEE", "COW", "DOG", "ELK", prompt_tokens=arrived)
    assert grade_recall(HAYSTACK, control, said).verdict is verdict


def test_control_questions_follow_the_facts_and_recall_questions_the_filler() -> None:
    reader = Reader()
    assert ask_control(reader, HAYSTACK) == FULL_MARKS
    assert all(prompt.startswith(f"{HAYSTACK.needles[0].sentence}\n") for prompt in reader.prompts)
    reader.prompts.clear()
    recall = ask_filled(reader, HAYSTACK, FULL_MARKS)
    assert recall.verdict is Verdict.OK
    assert len(recall.replies) == 5
    assert all(prompt.startswith(HAYSTACK.prose) for prompt in reader.prompts)


def test_a_model_that_fails_the_control_is_not_filled() -> None:
    reader = Reader("ant", "bee", "cow")
    control = ask_control(reader, HAYSTACK)
    reader.prompts.clear()
    recall = ask_filled(reader, HAYSTACK, control)
    assert recall.verdict is Verdict.INCONCLUSIVE
    assert recall.detail == "recalls 2 of 5 facts from a few lines"
    assert reader.prompts == []
