"""Which failures of an engine say that it cannot do what was asked."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.requests.abilities import TOOL_RESULTS, Refusals
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.engines.request import Unable

ROLES = "Conversation roles must alternate user/assistant/user/assistant/..."


@pytest.mark.parametrize("text", [ROLES, "Unexpected message role.", "unknown role: X"])
def test_a_template_without_tools_cannot_show_their_results(text: str) -> None:
    failure = Failure.from_engine(text, phase="predict")
    with pytest.raises(Unable, match=text.partition("...")[0]), Refusals([TOOL_RESULTS]):
        raise failure
    # Without results of tools, such a history is the test's, and such a failure the template's.
    with pytest.raises(Failure, match=text.partition("...")[0]), Refusals(["tools", "stop"]):
        raise failure
