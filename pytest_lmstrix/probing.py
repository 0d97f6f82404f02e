"""The probes of the built-in checks: ask a loaded model, and say what was found."""

from __future__ import annotations

from pytest_lmstrix.bench import LoadedModel
from pytest_lmstrix.judging import Finding
from pytest_lmstrix.questions import FULL, HELLO, ask, grade, judge_full


def say_hello(loaded: LoadedModel) -> Finding:
    """Anything but silence will do."""
    prompts = loaded.model.prompts
    verdict = grade(HELLO, ask(loaded, prompts, HELLO), prompts)
    return Finding(verdict=verdict, detail="" if verdict.outcome == "passed" else "said nothing")


def answer_questions(loaded: LoadedModel) -> Finding:
    """Both semantic questions; one right answer passes."""
    prompts = loaded.model.prompts
    verdict, detail = judge_full([ask(loaded, prompts, question) for question in FULL], prompts)
    return Finding(verdict=verdict, detail=detail)
