"""Reports to open in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.project import Project

HOSTILE = "</div></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\" '"
USERS = """
import pytest

@pytest.mark.lmstrix(match="rude")
def test_own(lmstrix_model):
    assert lmstrix_model.chat("Hello", max_tokens=200).text == "Hi"
"""


@pytest.fixture
def report(project: Project) -> Path:
    """Three models: a good one, one too big from 1,024 tokens, and a hostile one."""
    project.engine(
        good="",
        big="behaviours=(OutOfMemory(above=512),)",
        rude=f"behaviours=(Says(text={HOSTILE!r}),)",
    )
    project.manifest(
        "[{id: good, contexts: [512, 1024]}, {id: big, contexts: [512, 1024, 2048]},"
        " {id: rude, contexts: [512]}]"
    )
    project.pytester.makepyfile(test_own=USERS)
    project.run("--lmstrix", "--all").assert_outcomes(passed=3, failed=4)
    return project.path / "reports" / "report.html"


@pytest.fixture
def many(project: Project) -> Path:
    """22 models: every third is too big from 1,024 tokens, one is missing; half have a tag."""
    names = [f"model-{n:02}" for n in range(22)]
    behaviours = dict.fromkeys(range(0, 22, 3), "behaviours=(OutOfMemory(above=512),)")
    behaviours[21] = "behaviours=(MissingFromDisk(),)"
    project.engine(**{name: f"max_context_length=1024, {behaviours.get(n, '')}"
                      for n, name in enumerate(names)})  # fmt: skip
    entries = ", ".join(
        f"{{id: {name}, contexts: [512, 1023], tags: [{'even' if n % 2 == 0 else 'odd'}]}}"
        for n, name in enumerate(names)
    )
    project.manifest(f"[{entries}]")
    project.run("--lmstrix")
    return project.path / "reports" / "report.html"
