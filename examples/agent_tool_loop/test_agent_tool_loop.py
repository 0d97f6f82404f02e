"""An agent's loop: the model calls tools until it can answer, and the loop ends.

What it proves: each call is well-formed (a known tool, arguments by its schema) and of the right
values, a result is used for the next call, the answer says what the tools said, an error of a tool
is not the end, and nothing is called where no tool is needed.

Run it in this folder: pytest --lmstrix --all
"""

from __future__ import annotations

import json

import pytest

# What follows up to `run` is the application's: import it from there. The tools of this test have
# fixed results, so that the right calls and the right answer are known.

MOST_TURNS = 6


class Shop:
    """The tools of one conversation, which note what was called."""

    def __init__(self):
        self.called = []

    def find_order(self, customer: str) -> str:
        """Return the number of the newest order of a customer."""
        self.called.append(("find_order", customer))
        orders = {"ada lovelace": "1042"}
        return orders.get(customer.lower(), f"error: no customer {customer!r}; give the full name")

    def delivery_day(self, order: int) -> str:
        """Return the day on which an order is delivered."""
        self.called.append(("delivery_day", order))
        return "Friday" if order == 1042 else f"error: no order {order}"

    @property
    def tools(self):
        return [self.find_order, self.delivery_day]


def run(model, shop, question):
    """Ask until there is an answer without calls, and return it."""
    history = [{"role": "user", "content": question}]
    for _ in range(MOST_TURNS):
        reply = model.chat(history, system="You serve a shop.", tools=shop.tools, max_tokens=300)
        if not reply.tool_calls:
            return reply.text
        history.append(
            reply.message
        )  # fails the test if a call has a fault: see docs/own-checks.md
        for call in reply.tool_calls:
            result = getattr(shop, call.name)(**call.arguments)
            history.append({"role": "tool", "tool_call_id": call.id, "content": result})
    pytest.fail(f"no answer after {MOST_TURNS} turns: {json.dumps(shop.called)}")


def test_two_calls_that_follow_from_each_other(lmstrix_model):
    shop = Shop()
    text = run(lmstrix_model, shop, "I am Ada Lovelace. On which day will my order be delivered?")
    assert shop.called == [("find_order", "Ada Lovelace"), ("delivery_day", 1042)]
    assert "friday" in text.lower(), text


def test_an_error_of_a_tool_is_not_the_end(lmstrix_model):
    shop = Shop()
    question = "Find the order of Ada; if that fails, her full name is Ada Lovelace."
    text = run(lmstrix_model, shop, question)
    assert shop.called[:2] == [("find_order", "Ada"), ("find_order", "Ada Lovelace")]
    assert "1042" in text, text


def test_nothing_is_called_without_need(lmstrix_model):
    shop = Shop()
    assert run(lmstrix_model, shop, "Just say hello, please.")
    assert shop.called == []
