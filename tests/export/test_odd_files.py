"""Files of any shape, and entries of other servers or names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pytest_lmstrix.export.apps import APPS
from pytest_lmstrix.export.document import DocumentError, look_up, same
from pytest_lmstrix.export.entries import Exported, one_of_each
from pytest_lmstrix.export.jsonc import parse_json
from pytest_lmstrix.export.yaml_text import parse_yaml
from tests.export.results import exported
from tests.export.test_merge import FILES, QWEN

YAML = ("continue", "litellm", "llama-swap")
JUNK = st.sampled_from([None, 5, 1.5, True, "", "x\ny", [], [[]], {}, {"models": 5}, "qwen3-8b"])


def merged(app: str, text: str, *entries: Exported) -> str:
    merge = APPS[app].merge
    assert merge is not None
    new = merge(text, entries).text
    assert merge(new, entries).text == new
    return new


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data if isinstance(data, list) else []
    for key, value in data.items() if isinstance(data, dict) else enumerate(items):
        yield from places(value, (*path, key))


def with_junk(data: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = data.copy()
    copy[path[0]] = with_junk(data[path[0]], path[1:], junk)
    return copy


def values(data: Any) -> dict[tuple[Any, ...], Any]:
    """Return what is no container, no number and no command, by its place."""
    found = {}
    for path in places(data):
        value = data
        for key in path:
            value = value[key]
        if isinstance(value, str | float | bool) and path[-1:] != ("cmd",):
            found[path] = value
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), app=st.sampled_from([*YAML, "opencode", "vscode", "zed", "aider", "cline"]))
def test_a_file_of_any_shape_is_kept_or_refused(data: st.DataObject, app: str) -> None:
    known = parse_yaml(FILES[app][0]) if app in YAML else parse_json(FILES[app][0])
    place = data.draw(st.sampled_from(list(places(known))))
    odd = with_junk(known, place, data.draw(JUNK))
    text = yaml.safe_dump(odd) if app in YAML else json.dumps(odd, indent=2)
    try:
        new = merged(app, text, QWEN)
    except DocumentError:
        return
    after = parse_yaml(new) if app in YAML else parse_json(new)
    for path, value in values(odd).items():
        new_value = look_up(after, path)
        assert same(new_value, value) or type(new_value) is int, path  # one that is set


def test_a_file_of_comments_gets_an_object_after_them() -> None:
    assert merged("opencode", "// mine\r\n/* too */", QWEN).startswith(
        '// mine\r\n/* too */\r\n{"provider": {"lmstudio": '
    )


def test_a_hundred_models_are_set_in_one_pass() -> None:
    many = [exported(id=f"m{number}") for number in range(100)]
    text = "model_list:\n" + "".join(
        f"- litellm_params: {{model: lm_studio/m{number}}}\n" for number in range(100)
    )
    assert merged("litellm", text, *many).count("max_input_tokens: 28672") == 100
    assert merged("json", "", *many).count('"context_length": 32768') == 100


def served(url: str, id: str = "gpu") -> Exported:
    entry = exported(id=id, engine="openai")
    return replace(entry, model=replace(entry.model, url=url, served_name="Qwen/Q"))


ENTRIES = {
    "opencode": '{"provider": {"x": {"options": {"baseURL": "ADDRESS"}, "models": {"MODEL": {}}}}}',
    "vscode": '[{"models": [{"id": "MODEL", "url": "ADDRESS/chat/completions"}]}]',
    "zed": '{"language_models": {"openai_compatible": {"x": {"api_url": "ADDRESS",'
    ' "available_models": [{"name": "MODEL", "max_tokens": 1}]}}}}',
    "continue": "models: [{provider: openai, model: 'MODEL', apiBase: 'ADDRESS', x: 1}]",
    "litellm": "model_list: [{litellm_params: {model: 'openai/MODEL', api_base: 'ADDRESS'}}]",
}


@pytest.mark.parametrize("app", ENTRIES)
def test_a_model_is_set_under_its_name_on_its_own_server(app: str) -> None:
    own = ENTRIES[app].replace("MODEL", "Qwen/Q")
    gpu = served("http://localhost:8000/v1")
    for url, is_own in [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.0.0.1:8001/v1", False),
        ("https://api.example.com/v1", False),
        ("{env:URL}", True),
    ]:
        text = own.replace("ADDRESS", url)
        assert (merged(app, text, gpu) != text) == is_own, url
    here = exported(id="Qwen/Q", engine="llamacpp")
    for url, is_own in [("http://10.0.0.2:8080/v1", True), ("https://api.example.com/v1", False)]:
        text = own.replace("ADDRESS", url)
        assert (merged(app, text, here) != text) == is_own, url


@pytest.mark.parametrize("app", ["opencode", "zed", "continue", "litellm", "vscode"])
def test_settings_to_print_name_the_server_of_each_model(app: str) -> None:
    text = APPS[app].render([served("http://a:1/v1"), served("https://b:2", "other")]).text
    assert text.count("Qwen/Q") >= 2
    for address in ("http://a:1/v1", "https://b:2/v1"):
        assert text.count(address) == 1


def test_a_name_of_ollama_without_its_tag_is_the_same() -> None:
    text = ENTRIES["opencode"].replace("ADDRESS", "http://h:11434/v1").replace("MODEL", "qwen3")
    entry = exported(id="qwen3:latest", engine="ollama")
    assert '"qwen3": {"limit": {"context": 32768' in merged("opencode", text, entry)
    assert merged("aider", '{"ollama_chat/qwen3": {}}', entry).count("ollama_chat/") == 2


def test_variants_of_a_model_are_not_told_apart() -> None:
    f16, q8 = (
        replace(QWEN, model=replace(QWEN.model, id=f"qwen3-8b+{word}", variant_of="qwen3-8b"))
        for word in ("f16", "q8")
    )
    assert one_of_each([f16, exported(id="other"), q8])[0] == [exported(id="other")]
    assert [each.reason for each in one_of_each([f16, q8])[1]] == [
        "one of 2 verified variants of qwen3-8b: select one with -k"
    ] * 2
    assert merged("codex", 'model = "qwen3-8b"\n', *one_of_each([q8])[0]).count("32768") == 2
