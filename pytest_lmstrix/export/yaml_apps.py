"""Programs with settings in YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_lmstrix.export.app import App, Merged
from pytest_lmstrix.export.document import SetValue, line_start, look_up
from pytest_lmstrix.export.entries import Exported
from pytest_lmstrix.export.json_apps import by_entry, entry_server, from_template, list_of, objects
from pytest_lmstrix.export.yaml_text import edit_yaml, parse_yaml

_CTX = re.compile(r"(?<!\S)(?<!taskset )(?<!ionice )(?:--ctx-size|-c)(?:\s+|=)(\S+)")
"""The size in a command; before the server, `-c` may be an option of another program."""


def _yaml_merge(
    changes_of: Callable[[Any, Exported], list[SetValue] | str],
) -> Callable[[str, Sequence[Exported]], Merged]:
    def merge(text: str, entries: Sequence[Exported]) -> Merged:
        data = parse_yaml(text)
        changes, left_out = by_entry(entries, lambda entry: changes_of(data, entry))
        return Merged(edit_yaml(text, changes), left_out)

    return merge


_CONTINUE = {"lmstudio": ("lmstudio", "openai"), "ollama": ("ollama",)}


def _continue(data: Any, entry: Exported) -> list[SetValue]:
    providers = _CONTINUE.get(entry.model.engine, ("llama.cpp", "llamafile", "openai"))
    changes = []
    for index, model in objects(look_up(data, ("models",))):
        ours = model.get("provider") in providers and model.get("model") in entry.names
        ours = ours and entry.is_at(model.get("apiBase"))
        if not ours or (model["provider"] == "openai" and not model.get("apiBase")):
            continue
        if "contextLength" in model:
            path: tuple[str | int, ...] = ("models", index, "contextLength")
            changes.append(SetValue(path, entry.context_length, entry.note))
        path = ("models", index, "defaultCompletionOptions")
        changes.append(SetValue((*path, "contextLength"), entry.context_length, entry.note))
        if look_up(model, (path[-1], "maxTokens")) is None:
            changes.append(SetValue((*path, "maxTokens"), entry.output))
    return changes


def _continue_template(entries: Sequence[Exported]) -> str:
    models = (
        f"  - name: {json.dumps(entry.name)}\n"
        f"    provider: {_CONTINUE.get(entry.model.engine, ('llama.cpp',))[0]}\n"
        f"    model: {json.dumps(entry.name)}\n"
        if entry.model.url is None
        else f"  - name: {json.dumps(entry.name)}\n    provider: openai\n"
        f"    model: {json.dumps(entry.name)}\n"
        f"    apiBase: {json.dumps(entry_server(entry) + '/v1')}\n"
        for entry in entries
    )
    return "name: Local\nversion: 1.0.0\nschema: v1\nmodels:\n" + "".join(models)


def _litellm_names(entry: Exported) -> tuple[str, ...]:
    prefixes = {"lmstudio": ("lm_studio",), "ollama": ("ollama_chat", "ollama")}
    return (*prefixes.get(entry.model.engine, ()), "openai", "hosted_vllm")


def _litellm(data: Any, entry: Exported) -> list[SetValue]:
    changes = []
    for index, deployment in objects(look_up(data, ("model_list",))):
        params = deployment.get("litellm_params")
        provider, _, name = str(look_up(params, ("model",))).partition("/")
        ours = name in entry.names and entry.is_at(look_up(params, ("api_base",)))
        if not ours or provider not in _litellm_names(entry):
            continue
        if provider in ("openai", "hosted_vllm") and not look_up(params, ("api_base",)):
            continue  # the provider's own service
        path = ("model_list", index, "model_info")
        changes += [
            SetValue((*path, "max_input_tokens"), entry.input, entry.note),
            SetValue((*path, "max_output_tokens"), entry.output),
            SetValue((*path, "max_tokens"), entry.output),
        ]
    return changes


def _litellm_template(entries: Sequence[Exported]) -> str:
    models = (
        f"  - model_name: {json.dumps(entry.name)}\n"
        "    litellm_params:\n"
        f"      model: {json.dumps(f'{_litellm_names(entry)[0]}/{entry.name}')}\n"
        f"      api_base: {entry_server(entry)}"
        f"{'' if entry.model.engine == 'ollama' else '/v1'}\n"
        for entry in entries
    )
    return f"model_list:\n{''.join(models)}router_settings:\n  enable_pre_call_checks: true\n"


def _llama_swap(data: Any, entry: Exported) -> list[SetValue] | str:
    changes = []
    for name, model in objects(look_up(data, ("models",))):
        if entry.name not in (name, *list_of(model.get("aliases"))):
            continue
        command = str(model.get("cmd", ""))
        sizes = list(_sizes(command))
        if len(sizes) != 1 or not sizes[0][1].isdecimal():
            return (
                f"'models.{name}.cmd' has not one plain --ctx-size N; write"
                f" --ctx-size {entry.context_length} there yourself"
            )
        start, end = sizes[0].span(1)
        new = f"{command[:start]}{entry.context_length}{command[end:]}"
        changes.append(SetValue(("models", name, "cmd"), new, entry.note))
    return changes


def _sizes(command: str) -> Iterator[re.Match[str]]:
    """Yield the sizes in a command, except in lines that the program takes for comments."""
    for match in _CTX.finditer(command):
        if not command[line_start(command, match.start()) :].lstrip().startswith("#"):
            yield match


def _llama_swap_template(entries: Sequence[Exported]) -> str:
    lines = ["models:"]
    for entry in entries:
        file = entry.file or "MODEL.gguf"
        command = f"llama-server --port ${{PORT}} -m '{file}' --ctx-size 1 --parallel 1"
        lines += [f"  {json.dumps(entry.name)}:", f"    cmd: {json.dumps(command)}"]
    return "\n".join(lines) + "\n"


def _app(
    place: str,
    changes_of: Callable[[Any, Exported], list[SetValue] | str],
    template: Callable[[Sequence[Exported]], str],
) -> App:
    merge = _yaml_merge(changes_of)
    return App(place, from_template(merge, template), merge)


YAML_APPS = {
    "continue": _app("~/.continue/config.yaml", _continue, _continue_template),
    "litellm": _app("the file of litellm --config", _litellm, _litellm_template),
    "llama-swap": _app("the file of llama-swap --config", _llama_swap, _llama_swap_template),
}
