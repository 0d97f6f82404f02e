"""An engine that violates the contract fails exactly the tests of what it violates."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project

SOURCE = """
from msgspec.structs import replace
from pytest_lmstrix import Failure, ModelFacts, Verdict
from pytest_lmstrix.testing import EngineContract
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio.models.model import StandInModel

class Instance(FakeInstance):
{instance}
class Engine(FakeEngine):
    def load(self, model, context_length, progress):
        made = super().load(model, context_length, progress)
        made.__class__ = Instance
        return made
{engine}
class TestIt(EngineContract):
    model = "tiny"
    embedding = {embedding}
    @classmethod
    def make_engine(cls):
        return Engine([StandInModel(key="tiny"), StandInModel(key="vectors", type="embedding")])
    def count_loaded(self, engine):
        return engine.loaded
"""

CHANGED_REPLY = """
    def _predict(self, text, max_tokens, *, chat):
        reply = super()._predict(text, max_tokens, chat=chat)
        return replace(reply, {0})
"""

ENGINES: dict[str, tuple[str, set[str]]] = {
    "lists a model twice": (
        "    def models(self): return super().models() * 2",
        {"test_listed_models_have_facts"},
    ),
    "lists nothing": (
        "    def models(self): return []",
        {"test_the_model_is_known_before_its_load"},
    ),
    "loads what it does not have": (
        "    def load(self, model, context_length, progress):\n"
        "        return super().load(replace(model, id='tiny'), context_length, progress)",
        {"test_a_missing_model_is_a_failure"},
    ),
    "progress above 1": (
        "    def load(self, model, context_length, progress):\n"
        "        progress(1.5)\n"
        "        return super().load(model, context_length, progress)",
        {"test_progress_is_a_fraction_and_prefills_end"},
    ),
    "sweeps all": (
        "    def load(self, model, context_length, progress):\n"
        "        self.last = super().load(model, context_length, progress)\n"
        "        return self.last\n"
        "    def sweep(self, is_dead): self.last.unload()",
        {"test_sweep_leaves_what_living_owners_have_loaded"},
    ),
    "lists its own among others": (
        "    def others(self): return {'tiny': 1} if self.loaded else {}",
        {"test_others_does_not_list_what_the_engine_has_loaded"},
    ),
    "closes once": (
        "    def close(self): del self.events",
        {"ERROR"},
    ),
}

INSTANCES: dict[str, tuple[str, set[str]]] = {
    "unloads each time": (
        "    def unload(self): self._loaded = True; super().unload()",
        {"test_unload_is_idempotent", "ERROR"},
    ),
    "grants half": (
        "    context_length = property(lambda self: self.half, lambda self, value: None)\n"
        "    half = 512",
        {"test_the_requested_context_is_granted", "test_a_model_can_be_reloaded_at_another_size"},
    ),
    "counts fresh tokens only": (
        CHANGED_REPLY.format("prompt_tokens=reply.prompt_tokens - reply.cached_prompt_tokens"),
        {"test_prompt_tokens_count_the_whole_prompt"},
    ),
    "measures nothing": (
        CHANGED_REPLY.format("ttft_seconds=None"),
        {"test_complete_continues_the_prompt"},
    ),
    "no stop reason": (
        CHANGED_REPLY.format("stop_reason=None"),
        {"test_an_exhausted_token_budget_is_the_stop_reason"},
    ),
    "random": (
        "    times = 0\n"
        + CHANGED_REPLY.format("text=reply.text + str(self.again())")
        + "    def again(self): self.times += 1; return self.times",
        {"test_temperature_0_is_deterministic"},
    ),
    "counts per text": (
        "    def count_tokens(self, text): return 1",
        {
            "test_tokens_are_counted",
            "test_prompt_tokens_count_the_whole_prompt",
        },
    ),
    "cuts the prompt": (
        "    def _predict(self, text, max_tokens, *, chat):\n"
        "        return super()._predict(text[-1000:], max_tokens, chat=chat)",
        {
            "test_prompt_tokens_count_the_whole_prompt",
            "test_a_prompt_longer_than_the_context_is_an_error",
        },
    ),
    "silent in chats": (
        "    def chat(self, messages, *, max_tokens, temperature=0.0):\n"
        "        return replace(super().chat(messages, max_tokens=max_tokens), text=' ')",
        {"test_chat_replies"},
    ),
}


EMBEDDINGS: dict[str, tuple[str, set[str]]] = {
    "in another order": (
        "    def embed(self, texts):\n"
        "        found = super().embed(texts)\n"
        "        return replace(found, vectors=found.vectors[1:] + found.vectors[:1])",
        {"test_an_embedding_model_gives_a_vector_for_each_text"},
    ),
    "cuts a text": (
        "    def embed(self, texts): return super().embed([text[:200] for text in texts])",
        {"test_a_text_longer_than_the_context_is_not_embedded"},
    ),
}


def failed(
    project: Project,
    *,
    engine: str = "",
    instance: str = "    pass",
    embedding: str | None = None,
) -> set[str]:
    """Return the names of the tests that fail; `ERROR` for an error after a test."""
    source = SOURCE.format(engine=engine, instance=instance, embedding=repr(embedding))
    project.pytester.makepyfile(test_it=source)
    result = project.run("test_it.py", "-p", "no:randomly", "-rfE")
    lines = [line.split() for line in result.outlines]
    found = {w[1].partition("::TestIt::")[2] for w in lines if w[:1] == ["FAILED"]}
    return found | {w[0] for w in lines if w[:1] == ["ERROR"]}


def test_a_correct_engine_passes(project: Project) -> None:
    assert failed(project, embedding="vectors") == set()


@pytest.mark.parametrize("what", EMBEDDINGS)
def test_embeddings_that_violate_the_contract_fail(project: Project, what: str) -> None:
    source, expected = EMBEDDINGS[what]
    assert failed(project, instance=source, embedding="vectors") == expected


@pytest.mark.parametrize("what", ENGINES)
def test_an_engine_that_violates_the_contract_fails(project: Project, what: str) -> None:
    source, expected = ENGINES[what]
    assert failed(project, engine=source) == expected


@pytest.mark.parametrize("what", INSTANCES)
def test_an_instance_that_violates_the_contract_fails(project: Project, what: str) -> None:
    source, expected = INSTANCES[what]
    assert failed(project, instance=source) == expected


def test_a_failure_explains_the_values(project: Project) -> None:
    source = (
        SOURCE.format(engine="", instance="    pass", embedding=None) + "    expected = 'parrot'\n"
    )
    project.pytester.makepyfile(test_it=source)
    result = project.run("test_it.py", "-k", "continues_the_prompt")
    result.stdout.fnmatch_lines(["E * assert 'parrot' in '5'*"])
