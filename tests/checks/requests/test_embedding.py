"""Embedding models as users' tests ask them: silent cuts, broken vectors, mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Embeddings, Unable
from tests.checks.laboratory import loader_for
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio.models.behaviours import (
    AnyBehaviour,
    CutsPrompt,
    ForgetsMiddle,
    SeesFirst,
    SeesLast,
)
from tests.standin.lmstudio.models.model import StandInModel

SIZE = 512


def embedding(*behaviours: AnyBehaviour, size: int = SIZE, cuts: bool = False) -> EmbeddingModel:
    """A loaded model of the fake engine."""
    model = StandInModel(key="vec", type="embedding", behaviours=behaviours, cuts_texts=cuts)
    attempts = Attempts(loader_for(FakeEngine((model,))), run="run", machine="machine")
    entry = Model(id="vec", engine="fake", type="embedding")
    return EmbeddingModel(attempts.load(Case(model=entry, context_length=size)))


@pytest.mark.parametrize("size", [64, 100, SIZE, 4_096])
def test_a_healthy_model_counts_all_of_its_context(size: int) -> None:
    proof = embedding(size=size).check_context()
    assert proof.counted_by_engine
    assert size - size // 100 - 4 <= proof.tokens <= size
    assert min(proof.distances.values()) > 0 == proof.noise


@pytest.mark.parametrize(
    ("behaviour", "place"),
    [
        (SeesFirst(tokens=SIZE - 10), "end"),
        (SeesLast(tokens=SIZE - 10), "start"),
        (ForgetsMiddle(start=240, end=240), "middle"),
    ],
)
def test_a_place_that_does_not_count_is_a_cut(behaviour: AnyBehaviour, place: str) -> None:
    with pytest.raises(Failure, match=f"the {place} of the text does not change") as failed:
        embedding(behaviour).check_context()
    assert failed.value.verdict is Verdict.PROMPT_TRUNCATED


def test_a_cut_is_found_in_the_count_of_the_engine() -> None:
    with pytest.raises(Failure, match="401 arrived, in a context of 512: the engine cut") as failed:
        embedding(CutsPrompt(tokens=400)).check_context()
    assert failed.value.verdict is Verdict.PROMPT_TRUNCATED


@pytest.mark.parametrize("counts", [True, False])
def test_a_text_beyond_the_context_must_be_an_error(
    counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not counts:
        changed(monkeypatch, lambda found: Embeddings(vectors=found.vectors))
    assert "larger than the max context size" in embedding().check_overflow()
    silent = embedding(cuts=True)
    asks: list[Callable[[], object]] = [
        silent.check_overflow, lambda: silent.embed(["short", "rain " * 600])
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(Failure, match="cut the text without an error") as failed:
            ask()
        assert failed.value.verdict is Verdict.PROMPT_TRUNCATED


def test_the_context_is_proven_without_a_count_of_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(monkeypatch, lambda found: Embeddings(vectors=found.vectors))
    proof = embedding().check_context()
    assert not proof.counted_by_engine
    assert SIZE - 16 <= proof.tokens <= SIZE
    with pytest.raises(Failure, match="the end of the text does not change"):
        embedding(SeesFirst(tokens=SIZE - 14)).check_context()


def test_vectors_that_hardly_repeat_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = iter(range(1_000))

    def noisy(found: Embeddings) -> Embeddings:
        moved = next(signs) / 100
        return Embeddings(vectors=[[first + moved, *rest] for first, *rest in found.vectors])

    changed(monkeypatch, noisy)
    with pytest.raises(Failure, match="differ too much") as failed:
        embedding().check_context()
    assert failed.value.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([[1.0]], "1 vectors for 2 texts"),
        ([[1.0], [1.0, 2.0]], "vectors of 1, 2 numbers"),
        ([[], []], "vectors of 0 numbers"),
        ([[1.0], [float("nan")]], "numbers that are not finite"),
        ([[1.0], [0.0]], "a vector of zeros"),
    ],
)
def test_broken_vectors_are_an_error_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, vectors: list[list[float]], words: str
) -> None:
    changed(monkeypatch, lambda found: Embeddings(vectors=vectors))
    with pytest.raises(Failure, match=words) as failed:
        embedding().embed(["one", "two"])
    assert failed.value.verdict is Verdict.ENGINE_ERROR


def test_a_model_that_cannot_tell_texts_apart_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda found: Embeddings(vectors=[[3.0, 4.0] for _ in found.vectors]))
    constant = embedding()
    with pytest.raises(Failure, match="different texts have the same vector") as failed:
        constant.check_context()
    assert failed.value.verdict is Verdict.WRONG_ANSWER
    with pytest.raises(AssertionError, match="not normalized: their lengths are 5, 5, 5"):
        constant.check_normalized()


def test_the_order_by_similarity_is_shown() -> None:
    with pytest.raises(AssertionError, match=r"(?s)is another:.*'the cat'.*'rates rose'"):
        embedding().check_order("a cat", ["rates rose", "the cat"])


@pytest.mark.parametrize("given", ["", [], [""], [5], 5])
def test_mistakes_in_the_arguments(given: Sequence[str]) -> None:
    with pytest.raises((TypeError, ValueError)):
        embedding().embed(given)


def test_a_tiny_context_is_not_filled() -> None:
    with pytest.raises(Unable, match="too small"):
        embedding(size=32).check_context()


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Embeddings], Embeddings]) -> None:
    """Have the engine return other vectors."""
    embed = FakeInstance.embed
    monkeypatch.setattr(FakeInstance, "embed", lambda own, texts: change(embed(own, texts)))
