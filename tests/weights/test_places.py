"""Which model files are found on a machine, and under which ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_lmstrix.weights.places import find, search, usual_places
from tests.standin.gguf_bytes import write_model, write_split


def test_the_parts_of_a_split_model_are_found_as_one(tmp_path: Path) -> None:
    first, *_ = write_split(tmp_path, "big", 3)
    assert find([tmp_path]) == {"big": first}


def test_a_split_model_without_its_first_file_is_mentioned_once(tmp_path: Path) -> None:
    first, second, _ = write_split(tmp_path, "big", 3)
    first.unlink()
    found = search([tmp_path])
    assert found.models == {}
    assert found.incomplete == (
        f"{second}: big-00001-of-00003.gguf, the first file of this split model, is missing",
    )


def test_a_whole_model_with_the_name_of_a_part_is_found(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x-00002-of-00003.gguf")
    assert find([tmp_path]) == {"x": path}


def test_a_link_that_leads_nowhere_is_mentioned(tmp_path: Path) -> None:
    link = tmp_path / "dangling.gguf"
    link.symlink_to(tmp_path / "nowhere")
    found = search([tmp_path])
    assert found.models == {}
    assert found.incomplete == (f"{link}: a link that leads nowhere, to {tmp_path / 'nowhere'}",)


def test_files_are_found_once_and_have_distinct_names(tmp_path: Path) -> None:
    for name in ("a/one.gguf", "b/two.gguf", "c/two.gguf", "x/y/three.gguf", "z/y/three.gguf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "a" / "one.gguf")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    found = find([tmp_path, tmp_path / "a", tmp_path / "missing"])
    assert set(found) == {"one", "b/two", "c/two", "x/y/three", "z/y/three"}


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    models, disk = tmp_path / "models", tmp_path / "disk"
    for path in (models / "here" / "one.gguf", disk / "two.gguf", disk / "deep" / "THREE.GGUF"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (models / "away").symlink_to(disk)
    (models / "again").symlink_to(models / "here")
    (disk / "deep" / "back").symlink_to(models)
    assert find([models]) == {
        "one": models / "here" / "one.gguf",
        "two": models / "away" / "two.gguf",
        "THREE": models / "away" / "deep" / "THREE.GGUF",
    }


def test_default_folders_follow_the_settings_of_their_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama"))
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'lms'}\n", encoding="utf-8")
    (tmp_path / "lms").mkdir()
    settings = {"downloadsFolder": str(tmp_path / "models")}
    (tmp_path / "lms" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    places = usual_places()
    for place in ("models", "lms/models", "hf/hub", "llama"):
        assert tmp_path / place in places
    (tmp_path / "lms" / "settings.json").write_text("[]", encoding="utf-8")
    assert tmp_path / "models" not in usual_places()
