"""Merging into files of users: all but the values stays byte for byte."""

from __future__ import annotations

import pytest

from pytest_lmstrix.export.apps import APPS
from pytest_lmstrix.export.document import DocumentError
from tests.export.results import exported

NOTE = "lmstrix: 32768 tokens passed full on 2026-03-01, lmstudio 0.4.1"
QWEN = exported()
SMOL = exported(32_768, "smol", "llamacpp", "/m/smol.gguf", "size:1 path:/m/smol.gguf")
SMOL_NOTE = NOTE.replace("lmstudio", "llamacpp")

FILES = {
    "opencode": (
        """{
\t// my settings
\t"theme": "dark", "unknown": [1, 2.50, 1e3,],
\t"provider": {
\t\t"lmstudio": {
\t\t\t"models": {
\t\t\t\t"qwen3-8b": { "limit": { "context": 4096, "output": 4096 }, "x": null }, // mine
\t\t\t},
\t\t},
\t\t"openai": {"models": {"qwen3-8b": {"limit": {"context": 1, "output": 1}}}},
\t},
}
""",
        '"context": 4096',
        f'"context": 32768 /* {NOTE} */',
    ),
    "vscode": (
        '[{"name": "L",\t"apiKey": "k", "models": [\n  {"id": "qwen3-8b", "url": "http://h",\n'
        '   "maxInputTokens": 1,\n   "maxOutputTokens": 4096}]}]\n',
        '"maxInputTokens": 1,',
        '"maxInputTokens": 28672,',
    ),
    "zed": (
        '// Zed settings\n{ "language_models": {"lmstudio": {"available_models": [\n'
        '  {"name": "other", "max_tokens": 1},\n  {"name": "qwen3-8b", "max_tokens": 5}, ]}} }\n',
        '"max_tokens": 5',
        f'"max_tokens": 32768 /* {NOTE} */',
    ),
    "aider": (
        "{ // mine\n  'lm_studio/qwen3-8b': {max_input_tokens: 1, max_output_tokens: 4096, mode:"
        " 'chat'},\n}\n",
        "max_input_tokens: 1",
        f"max_input_tokens: 28672 /* {NOTE} */",
    ),
    "continue": (
        "name: Mine # yes\nversion: 1.0.0\nschema: v1\nmodels:\n- model: qwen3-8b\n"
        "  provider:   lmstudio\n  defaultCompletionOptions:\n    contextLength: 5\n"
        "    maxTokens: 99   # my own\n\n- {model: other, provider: lmstudio}\n",
        "contextLength: 5\n",
        f"contextLength: 32768  # {NOTE}\n",
    ),
    "litellm": (
        'x: &a [1]\ny: *a\nmodel_list:\n  - model_name: q\n    litellm_params: {model:'
        ' "lm_studio/qwen3-8b"}\n    model_info: {max_input_tokens: 7, max_output_tokens: 4096,'
        " max_tokens: 4096}\n# end",
        "max_input_tokens: 7",
        "max_input_tokens: 28672",
    ),
    "llama-swap": (
        "healthCheckTimeout: 500\nmodels:\n  qwen3-8b:\n    cmd: llama-server -m a.gguf --ctx-size"
        " 512 --port ${PORT}\n    ttl: 60\n",
        "--ctx-size 512 --port ${PORT}",
        "--ctx-size 32768 --port ${PORT}",
    ),
    "cline": (
        '{"version": 1, "modes": {}, "providers": {"lmstudio": {"settings": {"provider":'
        ' "lmstudio",\n "model": "qwen3-8b", "contextWindow":  5, "apiKey": "k"},'
        ' "tokenSource": "manual"},\n "ollama": {"settings": {"model": "other"}}}}\n',
        '"contextWindow":  5',
        '"contextWindow":  32768',
    ),
    "codex": (
        'model = "qwen3-8b" # mine\nmodel_context_window = 1_000\n\n[a]\nmodel = "x"\n',
        "= 1_000\n",
        f"= 32768  # {NOTE}\n",
    ),
    "llama-server": (
        "version = 1\n; mine\n[*]\nc = 7\n[qwen3-8b]\nmodel=/a.gguf\n"
        "c =  512  ; mine\ntop-k\t= 4\n",
        "c =  512  ; mine",
        f"; {NOTE}\nc =  32768  ; mine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FILES)
def test_only_the_number_changes(name: str, newline: str) -> None:
    before, old, new = (text.replace("\n", newline) for text in FILES[name])
    if name == "llama-swap":  # a command is a new text with its note
        new = new + f"  # {NOTE}"
    assert before.count(old) == 1
    merge = APPS[name].merge
    assert merge is not None
    merged = merge(before, [QWEN])
    assert merged.left_out == ()
    assert merged.text == before.replace(old, new)
    assert merge(merged.text, [QWEN]).text == merged.text


@pytest.mark.parametrize("name", FILES)
def test_a_new_value_replaces_the_comment_of_the_last_export(name: str) -> None:
    merge = APPS[name].merge
    assert merge is not None
    once = merge(FILES[name][0], [QWEN]).text
    twice = merge(once, [exported(16_384)]).text
    assert twice.count("lmstrix: ") == once.count("lmstrix: ")
    assert "28672" not in twice
    assert "32768" not in twice


@pytest.mark.parametrize("name", FILES)
def test_a_model_without_an_entry_is_left_out_or_added(name: str) -> None:
    before = FILES[name][0]
    merge = APPS[name].merge
    assert merge is not None
    merged = merge(before, [SMOL])
    if name in ("aider", "llama-server"):
        assert merged.left_out == ()
        assert "smol" in merged.text
        assert len(merged.text) > len(before)
    else:
        assert [each.model for each in merged.left_out] == ["smol"]
        assert merged.text == before


@pytest.mark.parametrize("name", [*FILES, "json", "lmstudio", "ollama"])
def test_a_half_written_file_is_refused(name: str) -> None:
    halves = {
        "json": '{"schema": 1, "models": {',
        "lmstudio": '{"load": {"fields": [',
        "ollama": 'FROM x\nSYSTEM """no end\n',
        "llama-server": "[qwen3-8b]\nctx-si",
        "codex": 'model = "qwen3',
        "continue": "models:\n- {model: qwen3-8b, provider: lmst",
        "litellm": 'model_list:\n- "half',
        "llama-swap": "models: [",
    }
    text = halves.get(name, FILES.get(name, ("",))[0].rstrip()[:-1])
    merge = APPS[name].merge
    assert merge is not None
    with pytest.raises(DocumentError, match=r"line|column|end"):
        merge(text, [QWEN])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zed", '{"language_models": {"lmstudio": {"available_models": [{"name": "qwen3-8b",'
                ' "max_tokens": [1]}]}}}'),
        ("continue", "models:\n- {model: qwen3-8b, provider: lmstudio,"
                     " defaultCompletionOptions: 5}\n"),
        ("lmstudio", '{"load": {"fields": {}}}'),
        ("lmstudio", '{"load": {"fields": []}} // no comments there'),
        ("opencode", '{"provider": {"lmstudio": {"models": 5}}}'),
        ("litellm", "a: &b {max_input_tokens: 1}\nmodel_list:\n- litellm_params: {model:"
                    " lm_studio/qwen3-8b}\n  model_info: *b\n"),
    ],
)  # fmt: skip
def test_an_unknown_shape_is_refused(name: str, text: str) -> None:
    merge = APPS[name].merge
    assert merge is not None
    with pytest.raises(DocumentError):
        merge(text, [QWEN])


@pytest.mark.parametrize("size", ["-c ${size}", "", "-c 1 --ctx-size 2", "# -c 4", "-c $(n)"])
def test_a_command_without_a_plain_size_is_listed_and_the_others_are_set(size: str) -> None:
    start = f"models:\n  smol:\n    cmd: |\n      llama-server\n      {size}\n"
    start += "  qwen3-8b:\n    cmd: |+\n      taskset -c 0 llama-server\n      # -c 3\n"
    merge = APPS["llama-swap"].merge
    assert merge is not None
    merged = merge(f"{start}      --ctx-size 512 -m x\n", [SMOL, QWEN])
    assert merged.text == f"{start}      --ctx-size 32768 -m x\n".replace(
        "cmd: |+", f"cmd: |+  # {NOTE}"
    )
    ((model, reason),) = [(each.model, each.reason) for each in merged.left_out]
    assert model == "smol"
    assert "'models.smol.cmd' has not one plain --ctx-size N; write --ctx-size 32768" in reason


def test_lm_studio_keeps_the_other_fields_of_a_model() -> None:
    before = """{
  "preset": "mine",
  "load": {
    "fields": [
      {"key": "llm.load.numParallelSessions", "value": 2}
    ]
  }
}
"""
    merge = APPS["lmstudio"].merge
    assert merge is not None
    field = '{"key": "llm.load.contextLength", "value": 32768}'
    after = before.replace("2}\n", f"2}},\n      {field}\n")
    assert merge(before, [QWEN]).text == after
    assert merge(after, [exported(1024)]).text == after.replace("32768", "1024")


def test_a_modelfile_keeps_its_other_lines() -> None:
    before = 'FROM /m/smol.gguf\nPARAMETER num_ctx 9\nparameter num_ctx  10\nSYSTEM """a\n# b"""\n'
    merge = APPS["ollama"].merge
    assert merge is not None
    after = before.replace("parameter num_ctx  10", f"# {SMOL_NOTE}\nparameter num_ctx  32768")
    assert merge(before, [SMOL]).text == after
    assert merge("FROM /m/smol.gguf", [SMOL]).text == (
        f"FROM /m/smol.gguf\n# {SMOL_NOTE}\nPARAMETER num_ctx 32768\n"
    )
    other = merge("FROM x\n", [SMOL])
    assert other.text == "FROM x\n"
    assert [each.reason for each in other.left_out] == ["the file is about x"]
    with pytest.raises(DocumentError, match="select one with -k"):
        merge("", [SMOL, SMOL])


@pytest.mark.parametrize(
    "rest",
    [
        "PARAMETER\tnum_ctx\t5\n",
        'SYSTEM "of two\nlines"\nPARAMETER num_ctx 5\n',
        'SYSTEM use """ for docs\nPARAMETER num_ctx 5\n',
        'MESSAGE user """\nPARAMETER num_ctx 6\n"""\nPARAMETER num_ctx 5\n',
        "# a\x0cb\u2028c\nPARAMETER num_ctx 5\rPARAMETER top_k 4\r",
        "FROM ./mmproj.gguf\nPARAMETER num_ctx 5",
    ],
)
def test_a_modelfile_is_read_as_ollama_reads_it(rest: str) -> None:
    merge = APPS["ollama"].merge
    assert merge is not None
    qwen = exported(engine="ollama", id="qwen3:latest")
    merged = merge(f"\tfrom\tqwen3\n{rest}", [qwen])
    assert merged.left_out == ()
    lines = merged.text.splitlines(keepends=True)
    kept = "".join(line for line in lines if "lmstrix: " not in line)
    assert kept.replace("32768", "5") == f"\tfrom\tqwen3\n{rest}"
    assert merged.text.count("32768") == 2
    assert merge(merged.text, [qwen]).text == merged.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "K = 32768  # N\n"),
        ('"K" = 0x10 # mine\n', '"K" = 32768 # mine\n'),
        ("a = 1\n[profiles.a]\nK = 5\n", "K = 32768  # N\na = 1\n[profiles.a]\nK = 5\n"),
    ],
)
def test_a_size_of_a_codex_profile_is_not_that_of_the_file(before: str, after: str) -> None:
    merge = APPS["codex"].merge
    assert merge is not None
    old, new = (
        'model = "qwen3-8b"\n' + text.replace("K", "model_context_window").replace("N", NOTE)
        for text in (before, after)
    )
    assert merge(old, [QWEN]).text == new


def test_blanks_before_the_name_of_a_preset_do_not_count() -> None:
    merge = APPS["llama-server"].merge
    assert merge is not None
    assert merge("[ smol]\nc = 5\n", [SMOL]).text == f"[ smol]\n; {SMOL_NOTE}\nc = 32768\n"


@pytest.mark.parametrize("name", ["openrouter", "openai"])
def test_a_model_of_the_same_name_in_the_cloud_keeps_its_size(name: str) -> None:
    merge = APPS["litellm"].merge
    assert merge is not None
    text = f"model_list:\n- litellm_params: {{model: {name}/qwen3-8b}}\n"
    assert merge(text, [QWEN]).text == text


def test_a_path_that_the_preset_format_cannot_hold_is_left_out() -> None:
    merge = APPS["llama-server"].merge
    assert merge is not None
    merged = merge("", [exported(512, "smol", "llamacpp", "/m/a#1.gguf", "size:1 path:/m")])
    assert merged.text == ""
    assert [each.reason for each in merged.left_out] == ["the path of its weights has # or ;"]
