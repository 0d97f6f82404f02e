"""The contract of every engine, as tests that the author of an engine runs.

>>> from pytest_lmstrix.testing import EngineContract
>>> class TestParrot(EngineContract):
...     model = "parrot"
...     make_engine = ParrotEngine

pytest collects the tests of the class. A member that an engine does not have is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Closes, Embeds, Engine, Instance, ListsOthers, Sweeps
from pytest_lmstrix.engines.catalog import attaches, facts_of, host_of
from pytest_lmstrix.probes.vectors import cosine

__all__ = ["FEW_SHOT", "STORY", "EngineContract", "RecordedProgress"]

FEW_SHOT = "1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 ="
"""A raw prompt that even small models continue with 5."""
STORY = "The miller went down to the river. He had lost his key. "
"""Text to fill a context with."""


class RecordedProgress:
    """A `Progress` that keeps what an engine reports."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        """The completed fractions of loads."""
        self.prefills: list[tuple[int, int]] = []
        """Processed and total tokens of prompts."""

    def __call__(self, fraction: float, /) -> None:
        self.fractions.append(fraction)

    def prefill(self, done: int, total: int) -> None:
        self.prefills.append((done, total))


class SharedInstance:
    """An instance for all tests that do not change it; loaded when one asks for it."""

    def __init__(self, load: Callable[[], Instance]) -> None:
        self._load = load
        self._instance: Instance | None = None

    def get(self) -> Instance:
        """Return the instance; load it first if necessary."""
        self._instance = self._instance or self._load()
        return self._instance

    def unload(self) -> None:
        """Unload the instance if it is loaded."""
        if self._instance is not None:
            self._instance.unload()
        self._instance = None


class EngineContract:
    """What the plugin requires of an engine; a subclass names the engine and one of its models.

    Set `model`, and either `make_engine` or a fixture `engine` of scope `class`. Override the
    other members where the defaults do not fit.
    """

    model: ClassVar[str | Model]
    """A model that the engine has: its id, or an entry as in a manifest."""
    missing: ClassVar[str | Model] = "pytest-lmstrix-missing-model"
    """A model that the engine does not have."""
    small: ClassVar[int] = 512
    """A context length in tokens that the model loads with."""
    large: ClassVar[int] = 1024
    """A larger one. An engine that `attaches` finds the model loaded with exactly this one."""
    prompt: ClassVar[str] = FEW_SHOT
    """A raw prompt that the model continues with `expected`."""
    expected: ClassVar[str] = "5"
    """Part of the first 4 tokens after `prompt`."""
    embedding: ClassVar[str | Model | None] = None
    """An embedding model that the engine has; `None` if it embeds nothing."""
    measured: ClassVar[frozenset[str]] = frozenset(
        {"prompt_tokens", "completion_tokens", "ttft_seconds"}
    )
    """Fields of `Reply` that the engine fills; without `prompt_tokens` cut prompts go unnoticed."""

    @classmethod
    def make_engine(cls) -> Engine:
        """Return the engine to be tested; the fixture `engine` closes it."""
        raise NotImplementedError(f"{cls.__name__} needs make_engine() or a fixture engine")

    def count_loaded(self, engine: Engine) -> int | None:
        """Return the number of models that the engine holds in memory; `None` if unknown.

        Ask the server or the system, not the engine: it is what unloads are checked against.
        """
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        """The engine; closed twice at the end, as an interrupted session may do."""
        engine = cls.make_engine()
        yield engine
        for _ in range(2):
            if isinstance(engine, Closes):
                engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, engine: Engine) -> Iterator[SharedInstance]:
        """The instance that most tests share; afterwards nothing is loaded."""
        contract = cls()
        before = contract.count_loaded(engine)
        model = contract.entry(engine, cls.model)
        shared = SharedInstance(lambda: engine.load(model, cls.large, RecordedProgress()))
        yield shared
        shared.unload()
        assert contract.count_loaded(engine) == before

    @pytest.fixture
    def instance(self, shared: SharedInstance) -> Instance:
        """The model, loaded with the context length `large`."""
        return shared.get()

    @pytest.fixture
    def unused(self, engine: Engine, shared: SharedInstance) -> Engine:
        """The engine with nothing loaded: not every engine has two instances of a model."""
        shared.unload()
        return engine

    @pytest.fixture
    def embedder(self, unused: Engine) -> Iterator[Instance]:
        """The embedding model, loaded with the context length `small`."""
        if self.embedding is None:
            pytest.skip("the engine has no embedding model")
        model = replace(self.entry(unused, self.embedding), type="embedding")
        instance = unused.load(model, self.small, RecordedProgress())
        try:
            yield instance
        finally:
            instance.unload()

    def entry(self, engine: Engine, given: str | Model) -> Model:
        """Return `model` or `missing` as an entry of a manifest."""
        return Model(id=given, engine=engine.name) if isinstance(given, str) else given

    @contextmanager
    def loaded(
        self, engine: Engine, context_length: int, progress: RecordedProgress | None = None
    ) -> Iterator[Instance]:
        """Load `model`; unload it afterwards, perhaps a second time."""
        model = self.entry(engine, self.model)
        instance = engine.load(model, context_length, progress or RecordedProgress())
        try:
            yield instance
        finally:
            instance.unload()

    def longer_than_the_context(self, instance: Instance) -> str:
        """Return a text of more tokens than the context has."""
        times = (
            13 * max(instance.context_length, self.large) // (10 * instance.count_tokens(STORY)) + 2
        )
        return STORY * times

    def value(self, reply: Reply, name: str) -> float | None:
        """Return a measured field of `reply`; `None` only where the engine does not measure it."""
        value: float | None = getattr(reply, name)
        if name in self.measured:
            assert value is not None, f"the reply has no {name}; see EngineContract.measured"
        return value

    # What the engine has

    def test_name_and_host_are_texts(self, engine: Engine) -> None:
        assert isinstance(engine.name, str)
        assert engine.name.strip() == engine.name != ""
        assert isinstance(host_of(engine), str)

    def test_listed_models_have_facts(self, engine: Engine) -> None:
        listed = engine.models()
        assert all(isinstance(facts, ModelFacts) and facts.id for facts in listed)
        ids = [facts.id for facts in listed]
        assert len(ids) == len(set(ids)), "an id is listed twice"

    def test_the_model_is_known_before_its_load(self, engine: Engine) -> None:
        facts = facts_of(engine, self.entry(engine, self.model))
        assert facts is not None
        assert facts.type == "llm"

    # What an instance does

    def test_the_requested_context_is_granted(self, instance: Instance) -> None:
        assert instance.context_length == self.large

    def test_complete_continues_the_prompt(self, instance: Instance) -> None:
        reply = instance.complete(self.prompt, max_tokens=4)
        assert self.expected in reply.text
        completed = self.value(reply, "completion_tokens")
        assert completed is None or 0 < completed <= 4
        sent = self.value(reply, "prompt_tokens")
        assert sent is None or sent >= instance.count_tokens(self.prompt)
        ttft = self.value(reply, "ttft_seconds")
        assert ttft is None or ttft > 0

    def test_temperature_0_is_deterministic(self, instance: Instance) -> None:
        first, second = (instance.complete(STORY, max_tokens=6).text for _ in range(2))
        assert first == second != ""

    def test_an_exhausted_token_budget_is_the_stop_reason(self, instance: Instance) -> None:
        reply = instance.complete(STORY * 2 + "The miller", max_tokens=2)
        assert reply.stop_reason == "length"

    def test_chat_replies(self, instance: Instance) -> None:
        reply = instance.chat([Message(role="user", content="Say hello")], max_tokens=12)
        assert reply.text.strip()
        completed = self.value(reply, "completion_tokens")
        assert completed is None or 0 < completed <= 12

    def test_tokens_are_counted(self, instance: Instance) -> None:
        one, ten = instance.count_tokens(STORY), instance.count_tokens(STORY * 10)
        assert 0 < 2 * one < ten
        # Parts may merge at their boundaries, and special tokens may be added to each text.
        assert abs(ten - 10 * one) <= 20

    def test_prompt_tokens_count_the_whole_prompt(self, instance: Instance) -> None:
        # Sent twice: what is in the KV cache counts, too.
        prompt = STORY * 20
        for _ in range(2):
            sent = self.value(instance.complete(prompt, max_tokens=1), "prompt_tokens")
            assert sent is None or 0 <= sent - instance.count_tokens(prompt) <= 2

    def test_a_prompt_longer_than_the_context_is_an_error(self, instance: Instance) -> None:
        with pytest.raises(Failure) as failed:
            instance.complete(self.longer_than_the_context(instance), max_tokens=1)
        assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
        assert self.expected in instance.complete(self.prompt, max_tokens=4).text

    # Loading and unloading

    def test_progress_is_a_fraction_and_prefills_end(self, unused: Engine) -> None:
        progress = RecordedProgress()
        with self.loaded(unused, self.large, progress) as instance:
            instance.complete(STORY * 20, max_tokens=1)
        assert progress.fractions or attaches(unused), "a load reports 1.0 at its end"
        assert all(0 <= fraction <= 1 for fraction in progress.fractions)
        assert all(0 <= done <= total for done, total in progress.prefills)

    def test_unload_is_idempotent(self, unused: Engine) -> None:
        before = self.count_loaded(unused)
        with self.loaded(unused, self.small) as instance:
            if before is not None:
                assert self.count_loaded(unused) == before + (not attaches(unused))
            instance.unload()
        assert self.count_loaded(unused) == before

    def test_a_model_can_be_reloaded_at_another_size(self, unused: Engine) -> None:
        if attaches(unused):
            pytest.skip("a server keeps its context")
        for context_length in (self.small, self.large, self.small):
            with self.loaded(unused, context_length) as instance:
                assert instance.context_length == context_length

    def test_an_unloaded_instance_raises_a_failure(self, unused: Engine) -> None:
        with self.loaded(unused, self.small) as instance:
            pass
        with pytest.raises(Failure) as failed:
            instance.complete(self.prompt, max_tokens=2)
        assert failed.value.verdict is not Verdict.MODEL_NOT_FOUND

    def test_a_missing_model_is_a_failure(self, unused: Engine) -> None:
        before = self.count_loaded(unused)
        missing = self.entry(unused, self.missing)
        with pytest.raises(Failure) as failed:
            unused.load(missing, self.small, RecordedProgress()).unload()
        assert (failed.value.verdict, failed.value.phase) == (Verdict.MODEL_NOT_FOUND, "load")
        assert self.count_loaded(unused) == before

    # Optional members

    def test_an_embedding_model_gives_a_vector_for_each_text(self, embedder: Instance) -> None:
        assert isinstance(embedder, Embeds), "an embedding model has embed()"
        assert embedder.context_length == self.small
        texts = ["A cat sat on the mat.", "Interest rates rose.", "A cat sat on the rug."]
        found = embedder.embed(texts)
        first, other, near = found.vectors
        assert len(first) == len(other) == len(near) > 1
        assert all(type(value) is float for value in first)
        assert cosine(first, near) > cosine(first, other), "the second text is the odd one"
        assert cosine(first, embedder.embed(texts[:1]).vectors[0]) > 0.999, "the order is another"
        counted = sum(map(embedder.count_tokens, texts))
        assert found.prompt_tokens is None or 0 <= found.prompt_tokens - counted <= 4 * len(texts)

    def test_a_text_longer_than_the_context_is_not_embedded(self, embedder: Instance) -> None:
        assert isinstance(embedder, Embeds), "an embedding model has embed()"
        text = STORY * (13 * embedder.context_length // (10 * embedder.count_tokens(STORY)) + 2)
        with pytest.raises(Failure) as failed:
            embedder.embed([text])
        assert failed.value.verdict in (Verdict.CONTEXT_TOO_LARGE, Verdict.PROMPT_TRUNCATED)
        assert embedder.embed([STORY]).vectors

    def test_sweep_leaves_what_living_owners_have_loaded(self, unused: Engine) -> None:
        if not isinstance(unused, Sweeps):
            pytest.skip("the engine has no sweep()")
        with self.loaded(unused, self.large) as instance:
            unused.sweep(lambda owner: False)
            assert self.expected in instance.complete(self.prompt, max_tokens=4).text

    def test_others_does_not_list_what_the_engine_has_loaded(self, unused: Engine) -> None:
        if not isinstance(unused, ListsOthers):
            pytest.skip("the engine has no others()")
        before = dict(unused.others())
        with self.loaded(unused, self.large):
            assert dict(unused.others()) == before
