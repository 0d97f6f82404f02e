"""A one-line error for everything invalid in models.yaml."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_lmstrix.manifest.read import (
    ManifestError,
    ManifestNotFound,
    read_manifest,
)
from tests.manifest.reading import problems, read

# The entry of model 'a' on line 3 with one more key, and the expected message.
WRONG_VALUES = [
    ("contexts: [eight]", "models.yaml:3: model 'a': contexts must be whole numbers, got 'eight'"),
    ("contexts: eight", "contexts must be ladder or a list of whole numbers, got 'eight'"),
    ("contexts: 8192", "contexts must be ladder or a list of whole numbers, got 8192"),
    ("contexts: []", "contexts must be ladder or a list of whole numbers, got an empty list"),
    ("contexts:", "contexts must be ladder or a list of whole numbers, got nothing"),
    ("contexts: [1, 0]", "contexts must be whole numbers from 1 to 2,147,483,647, got 0"),
    ("contexts: [2147483648]", "from 1 to 2,147,483,647, got 2147483648"),
    ("contexts: [-1]", "contexts must be whole numbers"),
    ("contexts: [true]", "contexts must be whole numbers, got true"),
    ("contexts: ['8']", "contexts must be whole numbers, got '8'"),
    ("contexts: [010]", "contexts must be whole numbers, got 010"),
    ("contexts: [1:30]", "contexts must be whole numbers, got 1:30"),
    ("contexts: [8, 9, 8]", "contexts must differ from each other, got 8"),
    ("contexts: [8, [9]]", "contexts must be whole numbers, got a list"),
    ("contexts: !x [8]", "got the tag '!x'"),
    ("context_limit: 0", "context_limit must be a whole number from 1 to 2,147,483,647, got 0"),
    ("context_limit: 1e3", "context_limit must be a whole number, got '1e3'"),
    ("context_limit: 1.0", "context_limit must be a whole number from 1 to 2,147,483,647, got 1.0"),
    ("context_limit: '9'", "context_limit must be a whole number, got '9'"),
    ("context_limit: yes", "context_limit must be a whole number, got yes"),
    ("context_limit: 99999999999999999999999999999", "from 1 to 2,147,483,647"),
    ("size_bytes: -5", "size_bytes must be a whole number"),
    ("size_bytes: 99999999999999999999", "size_bytes must be a whole number from 0"),
    ("tags: nightly", "tags must be a list of words, got 'nightly'"),
    ("tags: [on]", "tags must be text (in quotes), got on"),
    ("tags: ['']", "tags must not be empty, got ''"),
    ("load: {parallel: 65}", "load: parallel must be a whole number from 1 to 64, got 65"),
    ("load: {threads: 0}", "load: threads must be a whole number from 1"),
    (
        "load: {batch_size: 1}",
        "load: batch_size must be a whole number from 2 to 2,147,483,647, got 1",
    ),
    ("load: {gpu_offload: 1.5}", "load: gpu_offload must be a number from 0 to 1, got 1.5"),
    ("load: {gpu_offload: .nan}", "load: gpu_offload must be a number from 0 to 1, got .nan"),
    ("load: {flash_attention: 1}", "load: flash_attention must be true or false, got 1"),
    ("load: {kv_cache_type: q9}", "load: kv_cache_type must be one of f32, f16,"),
    (
        "load: {kv_cach_type: q8_0}",
        "'kv_cach_type' is not a valid key; did you mean kv_cache_type?",
    ),
    ("load: []", "load must be a mapping, got an empty list"),
    ("answer_tokens: 0", "answer_tokens must be a whole number from 1 to 2,147,483,647, got 0"),
    ("prompts: talk", "prompts must be one of completion, chat, got 'talk'"),
    ("type: image", "type must be one of llm, embedding, got 'image'"),
    ("engine: 3", "engine must be text (in quotes), got 3"),
    ("sha256: abc", "sha256 must be 64 hexadecimal digits, got 'abc'"),
    (f'sha256: "{"a" * 64}\\n"', "sha256 must be 64 hexadecimal digits"),
    ("source: ftp://x/y", "source must be a path, or begin with hf://, https:// or pypi://"),
    ("source: pypi://x/y", "source must read pypi://NAME==VERSION/path/in/wheel"),
    ("source: 5", "source must be text (in quotes), got 5"),
    ("source: [a]", "source must be text, got a list"),
    ("architecture: {}", "architecture must be text, got an empty mapping"),
    ("context_limt: 3", "'context_limt' is not a valid key; did you mean context_limit?"),
    ("zzz: 3", "'zzz' is not a valid key; choose from id, engine, contexts"),
    ("{x: 1}: 3", "a mapping is not a valid key"),
    (
        "<<: {size_bytes: 3}",
        "<< is not a valid key; keys cannot be merged: write them out, or once for",
    ),
    ("id: a", "id is given twice"),
    ("tags: !!python/object/apply:os.system [ls]", "got the tag 'python/object/apply:os.system'"),
    ("tags: &t [*t]", "alias *t is inside its own value"),
    ('architecture: "a\\nb"', "must be one line without control characters"),
    ('architecture: "a\\u2028b"', "must be one line without control characters"),
    ("quantization: a\u202eb", "without control or invisible characters, got 'a\\u202eb'"),
    ('context_limit: !!int "\u202e9"', "context_limit must be a whole number, got \\u202e9"),
]


@pytest.mark.parametrize(("line", "said"), WRONG_VALUES, ids=[line for line, _ in WRONG_VALUES])
def test_an_invalid_value_is_an_error(line: str, said: str) -> None:
    (problem,) = problems(f"models:\n  - id: a\n    {line}\n  - id: b\n")
    assert said in problem
    assert problem.startswith("models.yaml:3: ")


WRONG_FILES = [
    ("", "1: `models:` is missing"),
    ("# nothing yet\n", "1: `models:` is missing"),
    ("defaults: {engine: x}\n", "1: `models:` is missing"),
    ("[]", "1: the file must be a mapping, got an empty list"),
    ("just text", "1: the file must be a mapping, got 'just text'"),
    ("models:\n", "1: models is empty; `pytest --lmstrix-scan` adds the models it finds"),
    ("models: []\n", "1: models is empty"),
    ("models: null\n", "1: models is empty"),
    ("models: ~\n", "1: models is empty"),
    ("models: {a: 1}\n", "1: models must be a list, got a mapping"),
    ("\nmodels: !!set {a}\n", "2: models must be a list, got a mapping"),
    ("modles: [{id: a}]\nmodels: [{id: a}]", "'modles' is not a valid key; did you mean models?"),
    ("models: [{id: a}]\nmodels: [{id: a}]", "2: the file: models is given twice"),
    ("defaults:\nmodels: [{id: a}]", "1: defaults must be a mapping, got nothing"),
    ("defaults: {id: x}\nmodels: [{id: a}]", "1: defaults: 'id' is not a valid key"),
    ("defaults: {contexts: [0]}\nmodels: [{id: a}]", "1: defaults: contexts must be"),
    ("models:\n- id: a\n- tags: [x]\n", "3: model #2: id is missing"),
    ("models:\n- id: a\n- id: 7\n", "3: model 7: id must be text (in quotes), got 7"),
    ("models:\n- id: a\n- id: 2024-01-01\n", "3: model 2024-01-01: id must be text"),
    ("models:\n- id: a\n- id: ' '\n", "3: model ' ': id must not be empty"),
    ("models:\n- id: a\n-\n", "3: model #2 must be a mapping, got nothing"),
    ("models:\n- id: a\n- b\n", "3: model #2 must be a mapping, got 'b'"),
    ("models:\n- id: a\n- id: b\n- id: a\n", "4: model 'a': id is taken already, by line 2"),
    ("models:\n- &x {id: a}\n- *x\n", "id is taken already"),
    ("models:\n- id: a\n- id: " + "b" * 1001, "id must be no longer than 1,000 characters"),
    ("models:\n- !!python/object:os.x {id: a}\n", "2: model 'a' must be a mapping, got the tag"),
    ("models:\n\t- id: a\n", "2: is not YAML: while scanning for the next token found"),
    ("models:\n- id: 'a\n", "is not YAML: while scanning a quoted scalar"),
    ("models:\n- id: *unknown\n", "2: is not YAML: found undefined alias"),
    ("models: [{id: a}]\n---\nmodels: []", "2: is not YAML: expected a single document"),
    (b"models:\n- id: \xff\n", "2: must be UTF-8, got byte 0xff"),
    ("models: [{id: a}]".encode("utf-16"), "1: must be UTF-8, got byte 0xff"),
    (b"models:\n- id: a\x00\n", "2: must not contain the character U+0000"),
    (b"models:\n- id: a\x1b[31m\n", "2: must not contain the character U+001B"),
    ("[" * 100_000, "1: is nested more than 20 levels deep"),
    ("\n- " * 1 + "- " * 100_000 + "a", "2: is nested more than 20 levels deep"),
    ("{a: " * 100_000, "1: is nested more than 20 levels deep"),
    ("models:\n" + "- id: a\n" * 700_000, "1: is 5,600,008 bytes long, 4,000,000 are allowed"),
]


@pytest.mark.parametrize(
    ("text", "said"),
    WRONG_FILES,
    ids=[f"{n}-{said[:30]}" for n, (_, said) in enumerate(WRONG_FILES)],
)
def test_an_invalid_file_is_an_error(text: str | bytes, said: str) -> None:
    assert said in problems(text)[0]


def test_exponentially_growing_aliases_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 10)}]" for n in range(9)]
    assert "holds more than 500,000 values, aliases followed" in problems("\n".join(lines))[0]


def test_many_anchors_are_refused_at_once_and_by_line() -> None:
    lines = ["models:", *(f"- &a{n} {{id: x}}" for n in range(190_000))]
    text = "\n".join(lines)
    assert 3_000_000 < len(text) < 4_000_000
    began = time.process_time()
    assert problems(text) == ("models.yaml:1002: has more than 1,000 anchors",)
    assert time.process_time() - began < 2.0


def test_a_long_value_is_shown_at_once() -> None:
    began = time.process_time()
    assert problems("models: " + "x" * 3_900_000)[0].endswith("xxx...'")
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    "char", ["\u202e", "\u2066", "\u200b", "\u00ad", "\ufeff", "\U000e0041", "\x9b"]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_an_id_with_an_invisible_character_is_refused_by_line_and_value(
    char: str, quote: str
) -> None:
    written = char.encode("ascii", "backslashreplace").decode()
    value = f'"x{written}y"' if quote or char == "\x9b" else f"x{char}y"
    (problem,) = problems(f"models:\n- id: a\n- id: {value}\n")
    assert problem.startswith(
        f"models.yaml:3: model {f'x{char}y'!r}: id must be one line without control"
    )
    assert problem.endswith(f"got {f'x{char}y'!r}")
    assert char not in problem


def test_all_problems_are_listed_in_file_order_after_the_first() -> None:
    text = "models:\n- id: a\n  contexts: [0]\n  context_limit: 5\n  x: 1\n- id: a\n  prompts: x\n"
    with pytest.raises(ManifestError) as caught:
        read(text)
    assert [int(line.split(":")[1]) for line in caught.value.problems] == [3, 5, 6, 7]
    assert str(caught.value) == caught.value.problems[0] + " (and 3 more)"


def test_a_long_list_of_problems_is_truncated() -> None:
    assert len(problems("models:\n" + "- {id: a, x: 1}\n" * 1000)) == 50


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestNotFound, match=r"models\.yaml: no such file$"):
        read_manifest(tmp_path / "models.yaml")


def test_a_folder_is_not_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text", ["models: [{id: a, engine: ollama, load: {parallel: 4}}]",
             "defaults: {load: {parallel: [1, 4]}}\nmodels: [{id: a, engine: ollama}]"]
)  # fmt: skip
def test_what_an_engine_cannot_set_is_an_error_with_the_way_out(text: str) -> None:
    (problem,) = problems(text)
    assert "model 'a': load: parallel cannot be set: Ollama's server has it for all" in problem
    assert problem.endswith("OLLAMA_NUM_PARALLEL; to test what that gives, name the server with"
                            " engine openai and url")  # fmt: skip
