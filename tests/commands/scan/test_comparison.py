"""Comparison of a scan with the manifest: new, missing and conflicting models."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.commands.scan import Answer, compare_with_manifest, is_complete, not_recorded
from pytest_lmstrix.core.types import Model, ModelFacts

FOLDER = Path("/manifest")
IDS = st.sampled_from(["a", "b", "a@x", "a@y"])
ENGINES = st.sampled_from(["x", "y", "lmstudio"])
SOURCES = st.sampled_from([None, None, "/files/a", "files/b", "https://host.example/c"])
FACTS = st.builds(ModelFacts, id=IDS, source=SOURCES)
ANSWERS = st.lists(
    st.builds(
        Answer,
        engine=ENGINES,
        models=st.lists(FACTS, max_size=4).map(tuple),
        trouble=st.sampled_from([None, None, "away"]),
    ),
    max_size=4,
)
KNOWN = st.lists(
    st.builds(Model, id=IDS, engine=ENGINES, source=SOURCES), unique_by=lambda m: m.id, max_size=4
)


@given(KNOWN, ANSWERS)
def test_ids_stay_unique_and_a_second_scan_finds_nothing_new(
    known: list[Model], answers: list[Answer]
) -> None:
    found = compare_with_manifest(known, answers, FOLDER)
    everything = [*known, *found.new]
    assert len({model.id for model in everything}) == len(everything)
    assert compare_with_manifest(everything, answers, FOLDER).new == ()


@given(KNOWN, ANSWERS)
def test_only_engines_that_answered_report_missing_models(
    known: list[Model], answers: list[Answer]
) -> None:
    silent = {answer.engine for answer in answers if answer.trouble}
    had = {(answer.engine, facts.id) for answer in answers for facts in answer.models}
    for model in compare_with_manifest(known, answers, FOLDER).gone:
        assert model in known
        assert model.engine not in silent
        assert model.source is not None or (model.engine, model.id) not in had
        assert not (model.source or "").startswith("https://")


def answer(engine: str, *models: ModelFacts, host: str = "", trouble: str | None = None) -> Answer:
    return Answer(engine=engine, host=host, models=models, trouble=trouble)


def test_engine_ids_take_precedence_over_file_ids() -> None:
    file = ModelFacts(id="a", source="/files/a")
    found = compare_with_manifest(
        (), [answer("llamacpp", file), answer("lmstudio", ModelFacts(id="a"))], FOLDER
    )
    assert [(model.id, model.engine) for model in found.new] == [
        ("a", "lmstudio"),
        ("a@llamacpp", "llamacpp"),
    ]


def test_an_id_used_by_another_engine_is_reported() -> None:
    known = [Model(id="a", engine="llamacpp", source="/files/a")]
    found = compare_with_manifest(known, [answer("lmstudio", ModelFacts(id="a"))], FOLDER)
    assert found.new == ()
    assert found.left_out == ("lmstudio: id 'a' belongs to another model",)


def test_symlinks_are_resolved_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    link = tmp_path / "link.gguf"
    try:
        link.symlink_to("a.gguf")
    except OSError:
        pytest.skip("no links here")
    known = [Model(id="mine", engine="llamacpp", source="link.gguf")]
    facts = ModelFacts(id="a", source=str(tmp_path / "a.gguf"))
    found = compare_with_manifest(known, [answer("llamacpp", facts)], tmp_path)
    assert (found.new, found.gone) == ((), ())
    (tmp_path / "a.gguf").unlink()
    assert compare_with_manifest(known, [answer("llamacpp")], tmp_path).gone == tuple(known)


HASH = "ab" * 32
HUB = "hf://org/some-repo/sub/X.Q4_K_M.gguf"
CACHED = "/hub/models--org--some-repo/snapshots/abc/sub/X.Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("source", "path", "same"),
    [
        (HUB, CACHED, True),
        (f"{HUB}@main", CACHED, True),
        (HUB, "/studio/models/org/some-repo/sub/X.Q4_K_M.gguf", True),
        (HUB, "/llama.cpp/org_some-repo_sub_X.Q4_K_M.gguf", True),
        ("hf://other/some-repo/sub/X.Q4_K_M.gguf", CACHED, False),
        ("hf://org/some-repo/X.Q4_K_M.gguf", CACHED, False),
        ("hf://rg/some-repo/sub/X.Q4_K_M.gguf", "/studio/org/some-repo/sub/X.Q4_K_M.gguf", False),
        ("hf://org/some-repo/sub/XxQ4_K_M.gguf", CACHED, False),
        ("https://host.example/X.gguf", CACHED, False),
        ("https://host.example/X.gguf", f"/hub/blobs/{HASH}", True),
        ("pypi://some==1/X.gguf", f"/hub/blobs/{HASH}", True),
    ],
)
def test_a_file_downloaded_by_another_program_is_recognized(
    source: str, path: str, same: bool
) -> None:
    known = [Model(id="X", engine="llamacpp", source=source, sha256=HASH.upper())]
    found = compare_with_manifest(
        known, [answer("llamacpp", ModelFacts(id="X", source=path))], FOLDER
    )
    assert (found.new == ()) is same
    assert found.gone == ()
    other = [Model(id="X", engine="x", source=source, sha256=HASH.upper())]
    assert compare_with_manifest(
        other, [answer("llamacpp", ModelFacts(id="X", source=path))], FOLDER
    ).new


def test_a_file_downloaded_by_the_plugin_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "X-123.gguf"
    monkeypatch.setattr("pytest_lmstrix.commands.scan.is_cached", lambda source, base_dir: cached)
    known = [Model(id="mine", engine="llamacpp", source="https://host.example/X.gguf")]
    facts = [ModelFacts(id=name, source=str(tmp_path / f"{name}.gguf")) for name in ("X-123", "Y")]
    found = compare_with_manifest(known, [answer("llamacpp", *facts)], FOLDER)
    assert [model.id for model in found.new] == ["Y"]


def test_facts_that_cannot_be_written_are_reported() -> None:
    new = [
        Model(id="a", engine="x", size_bytes=1, context_limit=0),
        Model(id="b", engine="x", type="llm"),
        Model(id="c", engine="x"),
    ]
    appended = [Model(id="a", engine="x", size_bytes=1), Model(id="b", engine="x")]
    assert list(not_recorded(new, appended)) == [
        "x: 'a': context_limit 0 is not valid; left out",
        "x: 'c' is not a valid id for a manifest",
    ]


HERE = answer("fake")
AWAY = answer("lmstudio", host="h:1", trouble="away")


@pytest.mark.parametrize(
    ("answers", "engine", "hosts", "complete"),
    [
        pytest.param([HERE], None, [], True, id="all hosts answer"),
        pytest.param([HERE, AWAY], None, [], True, id="unreachable host not configured"),
        pytest.param([AWAY], None, [], False, id="no host answers"),
        pytest.param([HERE, AWAY], None, ["h:1"], False, id="unreachable host configured"),
        pytest.param([HERE, AWAY], None, ["h:2"], True, id="other host configured"),
        pytest.param([HERE, AWAY], "lmstudio", [], False, id="model needs the unreachable host"),
        pytest.param([HERE, AWAY], "fake", [], True, id="model needs the other engine"),
    ],
)
def test_a_scan_is_complete_if_all_required_engines_answer(
    answers: list[Answer], engine: str | None, hosts: list[str], complete: bool
) -> None:
    known = [Model(id="a", engine=engine)] if engine else []
    assert is_complete(answers, known, hosts) is complete
