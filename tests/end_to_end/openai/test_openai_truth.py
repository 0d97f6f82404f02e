"""A real llama.cpp server gives the same verdicts through `openai` as the embedded engine."""

from __future__ import annotations

import pytest

pytest.importorskip("xllamacpp")

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from tests.end_to_end.project import Project
from tests.standin import weights
from tests.standin.llamacpp_server import llamacpp_server

KEY = "sk-real-3b8f0d17ac"
MANIFEST = """\
defaults: {{contexts: [{sizes}, 8192]}}
models:
  - {{id: served, engine: openai, url: "{url}/v1", api_key_env: REAL_KEY, model: "{path}"}}
  - {{id: embedded, engine: llamacpp, source: "{path}", contexts: [{sizes}],
     load: {{threads: 1}}}}
"""


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(1_024,), (1_024, 2_048, 4_096)], ids=["small", "all"])
def test_the_verdicts_are_those_of_the_embedded_engine(
    project: Project, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    monkeypatch.setenv("REAL_KEY", KEY)
    with llamacpp_server(max(sizes), api_key=KEY) as url:
        text = MANIFEST.format(
            url=url, path=weights.smollm2().as_posix(), sizes=", ".join(map(str, sizes))
        )
        project.pytester.makefile(".yaml", models=text)
        project.run("--lmstrix", "--all", "-m", "full or deep")
    found = {
        engine: {
            (r.check, r.context_length): (r.verdict, r.recall, r.prompt_tokens, r.form)
            for r in project.results
            if r.engine == engine and r.context_length in sizes
        }
        for engine in ("openai", "llamacpp")
    }
    assert len(found["llamacpp"]) == 2 * len(sizes)
    assert found["openai"] == found["llamacpp"]
    refused = [r for r in project.results if r.context_length not in sizes]
    assert {(r.engine, r.verdict, r.granted_context_length) for r in refused} == {
        ("openai", "context_not_granted", max(sizes))
    }
    assert KEY.encode() not in b"".join(
        path.read_bytes() for path in project.path.rglob("*") if path.is_file()
    )
