"""The notes that explain the words beside a verdict, such as `ok, slow`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.reports.overview.standing import failures_first
from pytest_lmstrix.reports.run_json import RunReport


def explained_notes(run: RunReport) -> Iterator[str]:
    """Yield `tiny, full at 60,000: slow: decodes 3.1 tokens/s, 40.2 at 30,000`.

    And what `deep` has shown of a model, such as `tiny, deep: reach 8,192, resist 4,096`.
    A note that several sizes of a model have is named once, at the first of them.
    """
    for model in failures_first(run):
        known: set[str] = set()
        for result in run.results[model.id]:
            for note in result.notes if result.verdict is Verdict.OK else ():
                if ":" in note and note not in known:
                    known.add(note)
                    yield f"{model.id}, {result.check} at {tokens(result.context_length)}: {note}"
        if model.tiers is not None and any(each.tiers for each in run.results[model.id]):
            yield f"{model.id}, deep: {model.tiers.text}"
