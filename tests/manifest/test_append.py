"""Appending to models.yaml: existing content is unchanged, new models are read back."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.manifest.append import append_models, model_of
from pytest_lmstrix.manifest.read import ManifestError, parse_manifest, read_manifest

NEW = Model(id="new", engine="lmstudio", context_limit=4096)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def append(path: Path, text: str, *models: Model) -> str:
    path.write_bytes(text.encode())
    append_models(path, models or [NEW])
    return path.read_bytes().decode()


def test_a_new_file_is_created_with_a_comment(path: Path) -> None:
    facts = ModelFacts(
        id="qwen3-4b",
        context_limit=32768,
        size_bytes=2_500_000_000,
        path="qwen/qwen3-4b",
        architecture="qwen3",
        quantization="Q4_K_M",
        capabilities=("tools", "vision"),
    )
    embedder = ModelFacts(id="nomic-embed", type="embedding", context_limit=2048)
    added = append_models(
        path, [model_of(facts, "lmstudio"), model_of(embedder, "llamacpp")], engine="lmstudio"
    )
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# The models that `pytest --lmstrix` tests")
    assert text.endswith("""\
models:
  - id: qwen3-4b
    context_limit: 32768
    size_bytes: 2500000000
    architecture: qwen3
    quantization: Q4_K_M
    capabilities: [tools, vision]
  - id: nomic-embed
    engine: llamacpp
    context_limit: 2048
    type: embedding
""")
    assert read_manifest(path) == added
    assert [model.engine for model in read_manifest(path, engine="other")] == [
        "lmstudio",
        "llamacpp",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_new_file_is_readable_by_others(path: Path) -> None:
    append_models(path, [NEW])
    assert path.stat().st_mode & 0o777 == 0o644


def test_without_new_models_the_file_is_not_touched(path: Path) -> None:
    assert append_models(path, []) == ()
    assert not path.exists()
    path.write_text("models: [{id: new}]", encoding="utf-8")
    before = path.stat()
    assert append_models(path, [NEW]) == ()
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    ("old", "added"),
    [
        ("models:\n  - id: a\n", "  - id: new\n    engine: lmstudio\n    context_limit: 4096\n"),
        ("models:\n- id: a\n", "- id: new\n  engine: lmstudio\n  context_limit: 4096\n"),
        ("models:\n- id: a", "\n- id: new\n  engine: lmstudio\n  context_limit: 4096\n"),
        (
            "models:\r\n     -   id: a\r\n         tags: [x]\r\n# end",
            "\r\n     - id: new\r\n       engine: lmstudio\r\n       context_limit: 4096\r\n",
        ),
        (
            "defaults: {engine: lmstudio}\nmodels:\n  - id: a   # mine\n\n\n",
            "  - id: new\n    context_limit: 4096\n",
        ),
        ("models:\n", "  - id: new\n    engine: lmstudio\n    context_limit: 4096\n"),
        ("models:   # none yet", "\n  - id: new\n    engine: lmstudio\n    context_limit: 4096\n"),
        ("", "models:\n  - id: new\n    engine: lmstudio\n    context_limit: 4096\n"),
        (
            "defaults: {engine: lmstudio}\r\n# none yet",
            "\r\nmodels:\r\n  - id: new\r\n    context_limit: 4096\r\n",
        ),
        ("\ufeffmodels:\n- {id: a}\n", "- id: new\n  engine: lmstudio\n  context_limit: 4096\n"),
        (
            "models:\n  - id: |-\n      a",
            "\n  - id: new\n    engine: lmstudio\n    context_limit: 4096\n",
        ),
    ],
    ids=[
        "indented",
        "flush",
        "no-last-line-end",
        "windows",
        "default-engine",
        "empty",
        "empty-comment",
        "nothing",
        "no-list",
        "byte-order-mark",
        "block-text",
    ],
)
def test_models_are_appended_in_the_style_of_the_file(path: Path, old: str, added: str) -> None:
    assert append(path, old) == old + added


@pytest.mark.parametrize(
    "old",
    [
        "models: []\n",
        "models: [{id: a}]\n",
        "models:\n  - id: a\ndefaults: {}\n",
        "models:\n  - id: a\n...\n",
        "models: &x\n  - id: a\ndefaults: {tags: []}",
        "models: null\n",
        "{models: [{id: a}]}\n",
    ],
)
def test_a_file_that_cannot_be_appended_to_is_unchanged(path: Path, old: str) -> None:
    with pytest.raises(ManifestError, match=r"models\.yaml: nothing can be appended; `models:` m"):
        append(path, old)
    assert path.read_text(encoding="utf-8") == old
    assert list(path.parent.iterdir()) == [path]


def test_an_invalid_manifest_is_unchanged(path: Path) -> None:
    with pytest.raises(ManifestError, match=r"models\.yaml:1: models must be a list"):
        append(path, "models: 3")
    assert path.read_text(encoding="utf-8") == "models: 3"


def test_default_sizes_above_a_new_models_limit_are_accepted(path: Path) -> None:
    append(path, "defaults: {contexts: [8192]}\nmodels:\n- id: a\n")
    assert read_manifest(path)[1].contexts == (4096,)


def test_an_invalid_model_does_not_prevent_the_others(path: Path) -> None:
    strange = [
        Model(id="bell\x07", engine="e"),
        Model(id="", engine="e"),
        Model(id="half\ud800", engine="e"),
        Model(id="zero", engine="e", context_limit=0, size_bytes=5),
        Model(id="twice", engine="e"),
        Model(id="twice", engine="f"),
    ]
    added = append_models(path, strange, engine="e")
    assert added == (Model(id="zero", engine="e", size_bytes=5), Model(id="twice", engine="e"))


def test_a_symlink_and_the_mode_are_kept(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.yaml"
    real.parent.mkdir()
    real.write_text("models:\n- id: a\n", encoding="utf-8")
    mode = real.stat().st_mode & ~0o022
    real.chmod(mode)
    try:
        path.symlink_to(real)
    except OSError:
        pytest.skip("no symbolic links here")
    append_models(path, [NEW])
    assert path.is_symlink()
    assert [model.id for model in read_manifest(real)] == ["a", "new"]
    assert real.stat().st_mode == mode


@pytest.mark.parametrize("old", [None, "models:\n- id: a\n"], ids=["new", "old"])
def test_an_unwritable_folder_is_an_error_naming_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, old: str | None
) -> None:
    if old is not None:
        path.write_text(old, encoding="utf-8")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        with pytest.raises(
            ManifestError, match=r"models\.yaml: cannot be written: Permission denied"
        ):
            append_models(path, [NEW])
    assert [each.read_text(encoding="utf-8") for each in path.parent.iterdir()] == (
        [] if old is None else [old]
    )


def test_a_concurrent_change_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("models:\n- id: a\n", encoding="utf-8")

    def edit(*_: object) -> None:
        path.write_text("models:\n- id: edited\n", encoding="utf-8")

    monkeypatch.setattr("shutil.copymode", edit)
    with pytest.raises(ManifestError, match="changed by another program meanwhile"):
        append_models(path, [NEW])
    assert [model.id for model in read_manifest(path)] == ["edited"]
    assert list(path.parent.iterdir()) == [path]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
new_models = st.builds(
    Model,
    id=texts | st.sampled_from(["yes", "1", "1e3", "~", "- a", "a: b", "x #y", "a\nb", "\ufeff"]),
    engine=st.sampled_from(["lmstudio", "llamacpp", "on"]),
    context_limit=st.none() | st.integers(1, 2**31 - 1),
    size_bytes=st.none() | st.integers(0, 2**63 - 1),
    architecture=st.none() | texts,
    capabilities=st.lists(texts, max_size=3).map(tuple),
    source=st.none() | st.just("~/a b.gguf"),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    models=st.lists(new_models, max_size=5, unique_by=lambda model: model.id),
    head=st.sampled_from(["", "# mine\n", "defaults: {engine: llamacpp}\n", "---\n"]),
    indent=st.integers(0, 6),
    line_end=st.sampled_from(["\n", "\r\n"]),
    tail=st.sampled_from(["", "\n", "\n\n  # end\n", "   ", "\n      # end", "\n\n\n"]),
)
def test_the_old_content_is_a_prefix_of_the_new_file(
    tmp_path: Path, models: list[Model], head: str, indent: int, line_end: str, tail: str
) -> None:
    path = tmp_path / "models.yaml"
    text = f"{head}models:\n{' ' * indent}- id: a first one\n{' ' * indent}- id: 'b'{tail}"
    old = text.replace("\n", line_end).encode()
    path.write_bytes(old)
    before = parse_manifest(old, path).models
    added = append_models(path, models)
    assert path.read_bytes().startswith(old)
    assert path.read_bytes().replace(b"\r\n", b"").count(b"\n") == (
        0 if line_end == "\r\n" else path.read_bytes().count(b"\n")
    )
    assert read_manifest(path) == before + added
    by_id = {model.id: model for model in models}
    for model in added:
        given_ = by_id[model.id]
        assert (model.engine, model.context_limit) == (given_.engine, given_.context_limit)
        assert (model.size_bytes, model.source) == (given_.size_bytes, given_.source)
