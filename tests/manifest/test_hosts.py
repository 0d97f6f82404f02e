"""`hosts:` of models.yaml: every key, every mistake, and which hosts a run uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.core.types import Host, ModelFacts
from pytest_lmstrix.manifest.append import append_models, model_of
from pytest_lmstrix.manifest.hosts import hosts_of_run
from pytest_lmstrix.manifest.read import Manifest, ManifestError, parse_manifest
from pytest_lmstrix.manifest.recognize import is_manifest

HOSTS = """\
hosts:
  - name: big
    url: 10.0.0.5:1234
    tags: [gpu, 24gb]
    slots: 2
    memory: 64GiB
  - {name: den, url: "ollama://127.0.0.1:11434", memory: 8_000_000_000}
"""
MODELS = """\
defaults: {hosts: [gpu]}
models:
  - {id: a}
  - {id: b, hosts: [den, 24gb]}
"""


def read(text: str) -> Manifest:
    return parse_manifest(text.encode(), Path("models.yaml"))


@pytest.mark.parametrize("text", [HOSTS + MODELS, MODELS + HOSTS], ids=["first", "last"])
def test_every_key_is_read_wherever_it_stands(text: str) -> None:
    manifest = read(text)
    assert manifest.hosts == (
        Host(
            address="10.0.0.5:1234",
            name="big",
            tags=("gpu", "24gb"),
            slots=2,
            memory_bytes=64 * 1024**3,
        ),
        Host(address="ollama://127.0.0.1:11434", name="den", memory_bytes=8_000_000_000),
    )
    assert [model.hosts for model in manifest.models] == [("gpu",), ("den", "24gb")]


@pytest.mark.parametrize(
    ("url", "engine", "address"),
    [
        ("http://10.0.0.5:1234/v1", None, "10.0.0.5:1234"),
        ("10.0.0.5:1234", "lmstudio", "10.0.0.5:1234"),
        ("127.0.0.1:11434", "ollama", "ollama://127.0.0.1:11434"),
        ("http://127.0.0.1:11434", "ollama", "ollama://127.0.0.1:11434"),
        ("ollama://box", None, "ollama://box:11434"),
        ("openai+https://h/v1", None, "openai+https://h"),
        ("https://h/v1", "openai", "openai+https://h"),
        ("h:8080", "llama-server", "llama-server+http://h:8080"),
        ("h:9000", "parrot", "parrot://h:9000"),
        ("parrot+http://h:9000", "parrot", "parrot+http://h:9000"),
    ],
)
def test_the_engine_is_in_the_url_or_beside_it(url: str, engine: str | None, address: str) -> None:
    more = f", engine: {engine}" if engine else ""
    (host,) = read(f"hosts: [{{name: a, url: '{url}'{more}}}]\nmodels: [{{id: a}}]").hosts
    assert host.address == address


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ("hosts: 3", "1: hosts must be a list, got 3"),
        ("hosts: [3]", "1: host #1 must be a mapping, got 3"),
        ("hosts: [{url: 'a:1'}]", "1: host #1: name is missing"),
        ("hosts: [{name: a}]", "1: host 'a': url is missing"),
        ("hosts: [{name: a, url: b}]", "1: host 'a': url 'b' is not host:port"),
        ("hosts: [{name: a, url: 'b:1', sluts: 2}]", "'sluts' is not a valid key; did you mean s"),
        ("hosts: [{name: a, url: 'b:1', slots: 0}]", "slots must be a whole number from 1 to 1,0"),
        ("hosts: [{name: a, url: 'b:1', memory: 64G}]", "memory must be a number of bytes, or a"),
        ("hosts: [{name: a, url: 'b:1', memory: 0}]", "such as 64GiB, got 0"),
        ("hosts: [{name: 'a:1', url: 'b:1'}]", "name must be a word of letters, digits, -, _ and"),
        ("hosts: [{name: 10.0.0.5, url: 'b:1'}]", "name must begin with a letter"),
        ("hosts: [{name: localhost, url: 'b:1'}]", "name must differ from those of this machine"),
        ("hosts: [{name: a, url: 'ollama://b', engine: openai}]", "an address of engine openai,"),
        ("hosts: [{name: a, url: 'openai+http://u:pw@b:1'}]", "url must not hold a user name or"),
        ("hosts:\n- {name: a, url: 'b:1'}\n- {name: a, url: 'c:1'}", "3: host 'a': name is taken"),
        ("hosts:\n- {name: a, url: 'b:1'}\n- {name: c, url: 'b:1'}", "url is that of host 'a' al"),
        (
            "hosts:\n- {name: a, url: 'localhost:1'}\n- {name: c, url: '127.0.0.1:1'}",
            "of host 'a' al",
        ),
        (
            "hosts:\n- {name: a, url: 'B.lan:1'}\n- {name: c, url: 'http://b.LAN:1/v1'}",
            "of host 'a'",
        ),
        ("hosts: [{name: a, url: 'b:1', memory: 24}]", "such as 64GiB, got 24"),
        (
            "hosts: [{name: a, url: 'openai://b:1'}]",
            "'openai://b:1' is not openai+http://host:port",
        ),
        ("hosts: [{name: a, url: 'b:1', engine: llamacpp}]", "llamacpp is embedded, runs on this"),
    ],
)
def test_a_mistake_names_its_line_and_value(hosts: str, problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(f"{hosts}\nmodels: [{{id: a}}]")
    assert len(caught.value.problems) == 1, caught.value.problems
    assert problem in caught.value.problems[0]
    assert "pw" not in caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{HOSTS}models:\n- id: a\n  hosts: [gppu]",
         "models.yaml:10: model 'a': hosts: 'gppu' is neither a name nor a tag of `hosts:`; did"
         " you mean gpu?"),
        (f"{HOSTS}defaults: {{hosts: [x]}}\nmodels: [{{id: a}}]",
         "models.yaml:8: defaults: hosts: 'x' is neither a name nor a tag of `hosts:`; choose from"
         " big, gpu, 24gb, den"),
        ("models: [{id: a, hosts: [gpu]}]", "model 'a': hosts: 'gpu' is neither a name nor a tag of"
         " `hosts:`; it has none"),
        (f"{HOSTS}models: [{{id: a, hosts: gpu}}]", "hosts must be a list of names or tags of"),
    ],
)  # fmt: skip
def test_models_ask_for_hosts_that_there_are(text: str, problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(text)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_a_scan_appends_below_and_the_file_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(HOSTS, encoding="utf-8")
    assert not is_manifest(path), "no model yet"
    for key in ("one", "two"):
        before = path.read_bytes()
        append_models(path, [model_of(ModelFacts(id=key), "lmstudio")])
        assert path.read_bytes().startswith(before)
    assert is_manifest(path)
    manifest = parse_manifest(path.read_bytes(), path)
    assert [model.id for model in manifest.models] == ["one", "two"]
    assert manifest.hosts == read(HOSTS + MODELS).hosts


def test_nothing_is_appended_where_the_hosts_come_last(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(MODELS + HOSTS, encoding="utf-8")
    with pytest.raises(ManifestError, match="`models:` must be the last key"):
        append_models(path, [model_of(ModelFacts(id="new"), "lmstudio")])
    assert path.read_text(encoding="utf-8") == MODELS + HOSTS


KNOWN = read(HOSTS + MODELS).hosts


def test_hosts_given_to_a_run_take_the_place_of_those_of_the_manifest() -> None:
    big, den = KNOWN
    assert hosts_of_run([], KNOWN) == KNOWN
    assert hosts_of_run(["den"], KNOWN) == (den,)
    assert hosts_of_run(["10.0.0.5:1234", "big"], KNOWN) == (big,), "the same host by its address"
    assert hosts_of_run(["c:1", "big"], KNOWN) == (Host(address="c:1"), big)
    assert hosts_of_run(["OLLAMA://localhost:11434", "den"], KNOWN) == (den,), "spelled otherwise"
    once = hosts_of_run(["localhost:1", "127.0.0.1:1", "openai+http://localhost:1/a",
                         "openai+http://localhost:1/b"], KNOWN)  # fmt: skip
    assert [host.address for host in once] == [
        "localhost:1", "openai+http://localhost:1/a", "openai+http://localhost:1/b",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^'bigg' is not host:port, .* did you mean 'big'\?$"):
        hosts_of_run(["bigg"], KNOWN)
