"""A prompt's regression: it works in at least 6 of 10 samples, and not less often than before.

What it proves: at the temperature of the application, not only in the likeliest answer, the prompt
sorts reviews. The result tells the count with its confidence interval. With
`--lmstrix-fail-on-regression`, a change of the prompt, the model, its settings or the engine also
fails the run if the test still passes, but clearly less often than in the runs before.

Run it in this folder: pytest --lmstrix --all --lmstrix-fail-on-regression
Then change prompt.txt (leave out the worked examples), and run it again. It needs `--all`: a file
that a test reads is not part of what makes an earlier result valid.
"""

from __future__ import annotations

from pathlib import Path

import pytest

PROMPT = Path(__file__).with_name("prompt.txt").read_text(encoding="utf-8").rstrip()
REVIEWS = {
    "What a lovely place!": "positive",
    "The food was wonderful and the staff were kind.": "positive",
    "Terrible service.": "negative",
    "The room was dirty and it smelled.": "negative",
}


def sentiment(model, review):  # the application's: import it from there
    prompt = PROMPT.format(review=review)
    return model.complete(prompt, max_tokens=3, temperature=0.8, stop="\n").text.strip()


@pytest.mark.lmstrix(samples=10, at_least=6)
@pytest.mark.parametrize("review", REVIEWS)
def test_a_review_is_sorted(lmstrix_model, review):
    assert sentiment(lmstrix_model, review) == REVIEWS[review]
