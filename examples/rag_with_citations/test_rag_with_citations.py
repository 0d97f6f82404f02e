"""RAG with citations: answers come from the passages found, and name the passage they come from.

What it proves: the passage with the answer is found at all (without any model), each answer has the
fact and cites exactly the passage that has it, whatever its place among the others, and a question
that no passage answers gets no invented answer.

Run it in this folder: pytest --lmstrix --all
The first test needs no model: plain pytest runs it, too.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# What follows up to `answer` is the application's: import it from there. A search by words stands
# for your own, which may use an embedding model.

PASSAGES = Path(__file__).with_name("handbook.txt").read_text(encoding="utf-8").splitlines()
UNKNOWN = "I don't know"
PROMPT = """\
Answer the question from the passages. End with the number of the passage that has the answer, in
brackets as at its end, and cite no other. If none has it, say only: {unknown}.

{passages}

{question}"""


def words(text):
    return set(re.findall(r"\w{3,}", text.lower())) - {"the", "for", "what", "who", "and"}


def search(question, most=3):
    """Return the passages that share the most words with a question, the best one first."""
    ranked = sorted(PASSAGES, key=lambda each: len(words(each) & words(question)), reverse=True)
    return ranked[:most]


def answer(model, question, passages):
    numbered = [f"{each.rstrip('.')} [{n}]." for n, each in enumerate(passages, 1)]
    prompt = PROMPT.format(unknown=UNKNOWN, passages="\n".join(numbered), question=question)
    return model.chat(prompt, max_tokens=150).text


FACTS = {  # a question, and what the right answer and its passage must both have
    "What is the notice period?": "four weeks",
    "What is the limit for a hotel night?": "140 euros",
    "Who is the person to ask about parental leave?": "Anna Lind",
}


@pytest.mark.parametrize("question", FACTS)
def test_the_search_finds_the_passage(question):
    assert FACTS[question] in search(question)[0]


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("question", FACTS)
def test_an_answer_cites_its_passage(lmstrix_model, question, place):
    best, *others = search(question)
    passages = [*others[: place - 1], best, *others[place - 1 :]]
    text = answer(lmstrix_model, question, passages)
    assert FACTS[question] in text
    assert set(re.findall(r"\[(\d+)\]", text)) == {str(place)}, text


def test_an_answer_that_no_passage_has_is_not_invented(lmstrix_model):
    question = "What is the name of the managing director's dog?"
    text = answer(lmstrix_model, question, search(question))
    assert UNKNOWN.lower() in text.lower(), text
    assert not re.search(r"\[\d+\]", text), text
