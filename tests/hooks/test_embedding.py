"""Tests of users with `lmstrix_embedding`: which models they get, and what is recorded."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project

OWN = """
def test_own(lmstrix_embedding):
    {body}
"""


@pytest.fixture
def vectors(project: Project) -> Project:
    """A project with a language model, and an embedding model of 512 tokens."""
    return with_vectors(project)


def with_vectors(project: Project, more: str = "") -> Project:
    project.engine(tiny="", vectors=f'type="embedding", max_context_length=512, {more}')
    project.manifest("[{id: tiny, contexts: [512]}, {id: vectors}]")
    return project


def test_it_runs_for_each_embedding_model_at_its_declared_maximum(vectors: Project) -> None:
    vectors.pytester.makepyfile(OWN.format(body="assert lmstrix_embedding.dimension == 32"))
    ids = vectors.ids("--lmstrix", "-k", "test_own")
    assert ids == [
        "test_it_runs_for_each_embedding_model_at_its_declared_maximum.py::test_own[vectors-512]"
    ]
    result = vectors.run("--lmstrix", "-k", "test_own")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["lmstrix: 1 model in models.yaml, 1 case, 1 embedding model"])
    (line,) = vectors.results
    assert (line.model, line.check, line.context_length) == ("vectors", "test_own", 512)
    assert (line.verdict, line.prompt_tokens) == (Verdict.OK, 5)
    assert line.replies == ("a vector of 32 numbers",)
    assert vectors.engine_log == ["load vectors 512", "unload vectors"]
    page = vectors.path.joinpath("reports", "report.html").read_text(encoding="utf-8")
    assert "vectors" in page
    again = vectors.run("--lmstrix", *vectors.path.glob("test_*.py"))
    again.assert_outcomes(deselected=1)
    again.stdout.fnmatch_lines(["lmstrix: 1 case left out: cached results*"])


def test_all_that_it_checks_passes_with_a_healthy_model(vectors: Project) -> None:
    vectors.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.lmstrix(match="vec*", contexts=[256])
        def test_own(lmstrix_embedding):
            assert lmstrix_embedding.context_length == 256
            one, two = lmstrix_embedding.embed(["A black cat", "A black dog"])
            assert type(one) is list and type(one[0]) is float and len(one) == len(two)
            assert lmstrix_embedding.similarity(one, two) > 0.5
            assert lmstrix_embedding.similarity("a cat", "a cat") == pytest.approx(1)
            near, far = "the cat sleeps", "rates rose"
            assert lmstrix_embedding.ranked("the cat sits", [far, near]) == [near, far]
            lmstrix_embedding.check_order("the cat sits", [near, far])
            lmstrix_embedding.check_normalized()
            proof = lmstrix_embedding.check_context()
            assert 250 <= proof.tokens <= 256 and proof.counted_by_engine
            assert "larger than the max context" in lmstrix_embedding.check_overflow()
        """
    )
    vectors.run("--lmstrix", "-k", "test_own").assert_outcomes(passed=1)
    (line,) = vectors.results
    assert line.prompt_tokens is not None
    assert 250 <= line.prompt_tokens <= 256
    assert "of 256 tokens; a changed sentence moved the vector: start" in line.replies[-2]
    assert line.replies[-1].startswith("refused: ")
    assert vectors.engine_log == ["load vectors 256", "unload vectors"]


def test_it_is_not_counted_in_the_headline(vectors: Project) -> None:
    vectors.pytester.makepyfile(OWN.format(body="lmstrix_embedding.check_normalized()"))
    result = vectors.run("--lmstrix")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["The model works as far as tested", "vectors * ok *"])


def test_a_silent_cut_is_recorded_against_the_model(project: Project) -> None:
    with_vectors(project, "behaviours=(SeesFirst(tokens=400),)")
    project.pytester.makepyfile(OWN.format(body="lmstrix_embedding.check_context()"))
    project.run("--lmstrix", "-k", "test_own").assert_outcomes(failed=1)
    (line,) = project.results
    assert (line.verdict, line.outcome) == (Verdict.PROMPT_TRUNCATED, "failed")
    assert "the end of the text does not change the vector" in line.detail
    assert project.engine_log == ["load vectors 512", "unload vectors"]


def test_a_mistake_in_the_arguments_is_no_verdict(vectors: Project) -> None:
    asks = "lmstrix_embedding.dimension; lmstrix_embedding.similarity([1.0], [1.0, 0.0])"
    vectors.pytester.makepyfile(OWN.format(body=asks))
    vectors.run("--lmstrix", "-k", "test_own").assert_outcomes(failed=1)
    registry = vectors.path / "reports" / "registry.jsonl"
    assert not registry.exists() or vectors.results == []


def test_what_an_engine_cannot_embed_skips_the_test(project: Project) -> None:
    project.manifest("[{id: tiny, type: embedding, contexts: [512]}]")
    project.pytester.makepyfile(OWN.format(body="lmstrix_embedding.embed('a')"))
    result = project.run("--lmstrix", "-rs", "-k", "test_own")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*: tiny is not an embedding model"])


def test_without_embedding_models_it_is_skipped(project: Project) -> None:
    project.pytester.makepyfile(OWN.format(body="lmstrix_embedding.embed('a')"))
    result = project.run("--lmstrix", "-rs", "-k", "test_own")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*no embedding model of the manifest is selected"])
    without = project.run("-rs", "-k", "test_own")
    without.assert_outcomes(skipped=1)


def test_a_test_has_one_model(vectors: Project) -> None:
    vectors.pytester.makepyfile("def test_own(lmstrix_model, lmstrix_embedding): pass")
    result = vectors.run("--lmstrix", "-k", "test_own")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*has lmstrix_model or lmstrix_embedding: one model at a time*"])
