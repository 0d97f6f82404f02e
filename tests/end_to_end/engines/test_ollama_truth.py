"""A stand-in Ollama that answers through a real llama.cpp gives the embedded engine's verdicts."""

from __future__ import annotations

import pytest

pytest.importorskip("xllamacpp")

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project
from tests.standin import weights
from tests.standin.lmstudio import Embedded, StandInModel
from tests.standin.ollama import OllamaServer

SMALL = pytest.param(("full",), (1_024,), id="full")
ALL = pytest.param(("full", "deep"), (1_024, 2_048, 4_096), marks=pytest.mark.long, id="deep")
MANIFEST = """\
defaults: {{contexts: [{sizes}]}}
models:
  - {{id: smollm2, engine: ollama}}
  - {{id: embedded, engine: llamacpp, source: "{path}", load: {{threads: 1}}}}
"""


@pytest.mark.parametrize(("checks", "sizes"), [SMALL, ALL])
def test_the_verdicts_are_those_of_the_embedded_engine(
    project: Project, checks: tuple[str, ...], sizes: tuple[int, ...]
) -> None:
    path = weights.smollm2().as_posix()
    project.pytester.makefile(
        ".yaml", models=MANIFEST.format(path=path, sizes=", ".join(map(str, sizes)))
    )
    model = StandInModel(
        key="smollm2", max_context_length=8_192, bos_tokens=0, behaviours=(Embedded(path=path),)
    )
    with OllamaServer([model]) as server:
        project.run("--lmstrix", "--all", "-m", " or ".join(checks), "--lmstrix-host", server.host)
        assert server.loaded == {}
    found = {
        engine: {
            (r.check, r.context_length): (r.verdict, r.recall, r.prompt_tokens, r.form)
            for r in project.results
            if r.engine == engine
        }
        for engine in ("ollama", "llamacpp")
    }
    assert len(found["llamacpp"]) == len(checks) * len(sizes)
    assert found["ollama"] == found["llamacpp"]
