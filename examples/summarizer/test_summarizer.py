"""A summarizer: short, about the right thing, and without invented numbers.

What it proves: the summary is finished and at most half as long as the text, names what a reader
must know, and has no number that the text does not have. These are properties of any good summary
of the text, whatever its words. It does not prove that every claim is true: for that, ask questions
about the summary, or compare it with one that you have checked.

Run it in this folder: pytest --lmstrix --all
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = Path(__file__).with_name("minutes.txt").read_text(encoding="utf-8")
MUST_BE_NAMED = ("bridge", "Aldbrook", "48,000")
NUMBER = re.compile(r"\d[\d.,]*\d|\d")


def summarize(model, text):  # the application's: import it from there
    return model.chat(f"Summarize the text in one sentence.\n\n{text}", max_tokens=120)


@pytest.fixture(scope="module")  # asked once; what is asserted here would not count for the model
def reply(lmstrix_model):
    return summarize(lmstrix_model, TEXT)


def test_it_is_short_and_finished(reply):
    assert reply.stop_reason == "stop", "the budget cut the summary off"
    assert 5 <= len(reply.text.split()) <= len(TEXT.split()) / 2


def test_it_names_what_matters(reply):
    missing = [each for each in MUST_BE_NAMED if each.lower() not in reply.text.lower()]
    assert not missing, reply.text


def test_it_invents_no_number(reply):
    invented = set(NUMBER.findall(reply.text)) - set(NUMBER.findall(TEXT))
    assert not invented, reply.text
