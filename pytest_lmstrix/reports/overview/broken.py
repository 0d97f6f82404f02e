"""What broke, and since when: sentences beside the changes of a run. Pure."""

from __future__ import annotations

from pytest_lmstrix.registry.history.change import Change
from pytest_lmstrix.registry.history.since import since_text
from pytest_lmstrix.reports.run_json import RunReport

_BREAKS = ("newly_broken", "still_broken")


def break_text(run: RunReport, change: Change) -> str:
    """Return `Worked with 0.4.18, broken since 0.4.19 (2 Nov)`; empty if `change` is no break.

    The sentence is about the check that changed, on the machine of the run.
    """
    if change.kind not in _BREAKS:
        return ""
    for model in run.models:
        for since in model.since if model.id == change.model else ():
            if since.state == "broken" and since.check == change.check \
                    and since.machine in (None, run.machine):  # fmt: skip
                return since_text(since, today=run.finished)
    return ""
