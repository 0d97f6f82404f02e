"""JSON extraction: the prompt reads invoices into records of a type.

What it proves: the answer keeps the schema, is complete (not cut off by the budget), and the values
are those of the text. The engine is made to keep the schema where it can; so it is the values that
tell a good model from a bad one.

Run it in this folder: pytest --lmstrix --all
"""

from __future__ import annotations

import msgspec
import pytest

# What follows up to `extract` is the application's: import it from there, so that the test asks
# exactly what your users ask.


class Invoice(msgspec.Struct):  # or a pydantic model, a dataclass, a TypedDict, a JSON schema
    number: str
    customer: str
    total: float


SYSTEM = "Extract the number, the customer and the total of the invoice as JSON."
WORKED = [  # two worked examples help a small model more than any instruction
    {"role": "user", "content": "Invoice 31-9\nTo: River Hotel\nTowels: 75.00\nTotal: 75.00 EUR"},
    {
        "role": "assistant",
        "content": '{"number": "31-9", "customer": "River Hotel", "total": 75.0}',
    },
    {
        "role": "user",
        "content": "Dear Ms Bell,\nwe send you invoice B-402 of 61.20 EUR for two lamps.",
    },
    {"role": "assistant", "content": '{"number": "B-402", "customer": "Ms Bell", "total": 61.2}'},
]


def extract(model, text):
    question = {"role": "user", "content": text}
    return model.chat([*WORKED, question], system=SYSTEM, schema=Invoice, max_tokens=100)


INVOICES = {
    "bakery": (
        "Invoice 2024-117\nTo: Harbour Bakery\nFlour, 12 bags: 180.00\nDelivery: 15.50\n"
        "Total: 195.50 EUR",
        Invoice("2024-117", "Harbour Bakery", 195.5),
    ),
    "florist": (
        "Bill no. 88-03\nCustomer: Anna Lind\nRoses: 30.00\nTotal: 30.00 EUR",
        Invoice("88-03", "Anna Lind", 30.0),
    ),
    "school": (
        "INVOICE A-7741\nfor Mill Street School\n20 chairs 400.00, 4 tables 320.00\n"
        "Amount due 720.00 EUR",
        Invoice("A-7741", "Mill Street School", 720.0),
    ),
}


@pytest.mark.parametrize("name", INVOICES)
def test_an_invoice_is_read(lmstrix_model, name):
    text, expected = INVOICES[name]
    reply = extract(lmstrix_model, text)
    assert reply.stop_reason == "stop", "the budget cut the answer off"
    assert reply.parsed == expected  # `parsed` fails the test if the schema is not kept
