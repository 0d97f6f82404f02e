"""Programs with settings in JSON, most of them with comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from pytest_lmstrix.export.app import App, Merged, advice
from pytest_lmstrix.export.document import DocumentError, SetValue, look_up
from pytest_lmstrix.export.entries import Exported, NotExported
from pytest_lmstrix.export.jsonc import edit_json, is_blank, parse_json
from pytest_lmstrix.system.addresses import server_url

EXPORT_SCHEMA = 1
"""Of `json`; increased when a key is removed or changes its meaning."""
NO_ENTRY = "has no entry in this file, or none at its address: add the model in the program first"
_Changes = Callable[[Any, Exported], list[SetValue]]


def by_entry(
    entries: Sequence[Exported], changes_of: Callable[[Exported], list[SetValue] | str]
) -> tuple[list[SetValue], tuple[NotExported, ...]]:
    """Return the changes for all models, and the models that have none.

    In place of changes there may be the reason why there are none.
    """
    changes: list[SetValue] = []
    left_out = []
    for entry in entries:
        mine = changes_of(entry) or NO_ENTRY
        if isinstance(mine, str):
            left_out.append(NotExported(model=entry.model.id, reason=mine))
        else:
            changes += mine
    return changes, tuple(left_out)


def _json_merge(
    changes_of: _Changes, *, comments: bool = True
) -> Callable[[str, Sequence[Exported]], Merged]:
    def merge(text: str, entries: Sequence[Exported]) -> Merged:
        if text.strip() and not comments:
            parse_json(text, strict=True)
        data = {} if is_blank(text) else parse_json(text)
        changes, left_out = by_entry(entries, lambda entry: changes_of(data, entry))
        return Merged(edit_json(text, changes, comments=comments) if changes else text, left_out)

    return merge


def from_template(
    merge: Callable[[str, Sequence[Exported]], Merged],
    template: Callable[[Sequence[Exported]], str],
) -> Callable[[Sequence[Exported]], Merged]:
    """Return a `render` that merges into a template."""
    return lambda entries: merge(template(entries), entries)


def objects(data: Any) -> Iterator[tuple[str | int, dict[str, Any]]]:
    """Yield the objects in an object or a list, with their keys or indexes."""
    pairs = data.items() if isinstance(data, dict) else enumerate(list_of(data))
    yield from ((key, value) for key, value in pairs if isinstance(value, dict))


def list_of(data: Any) -> list[Any]:
    """Return `data` if it is a list, else an empty one."""
    return data if isinstance(data, list) else []


def _json(data: Any, entry: Exported) -> list[SetValue]:
    proof = msgspec.to_builtins(entry.proof)
    fields = {
        "context_length": entry.context_length,
        "verified_context": proof["context_length"],
        **{name: proof[name] for name in proof if name not in ("model", "context_length")},
    }
    setting = ("models", entry.model.id)
    return [
        SetValue(("schema",), EXPORT_SCHEMA),
        *(SetValue((*setting, name), value) for name, value in fields.items()),
    ]


def _opencode(data: Any, entry: Exported) -> list[SetValue]:
    top = "providers" if look_up(data, ("providers",)) else "provider"
    found = [
        (name, model)
        for name, provider in objects(look_up(data, (top,)))
        if isinstance(models := provider.get("models"), dict)
        and (name == entry.model.engine or look_up(provider, ("options", "baseURL")))
        and entry.is_at(look_up(provider, ("options", "baseURL")))
        for model in entry.names
        if model in models
    ]
    address = look_up(data, (top, "lmstudio", "options", "baseURL"))
    if not found and entry.model.engine == "lmstudio" and entry.is_at(address):
        found = [("lmstudio", entry.name)]  # a provider that the program has itself
    return [
        SetValue((top, name, "models", model, "limit", key), value, entry.note)
        for name, model in found
        for key, value in (("context", entry.context_length), ("output", entry.output))
    ]


def _opencode_template(entries: Sequence[Exported]) -> str:
    providers: dict[str, Any] = {}
    for entry in entries:
        if entry.model.engine != "lmstudio":
            address = entry_server(entry) + "/v1"
            name = "ollama" if entry.model.engine == "ollama" else "local"
            provider = _provider(providers, name, "options", {"baseURL": address})
            provider.setdefault("models", {})[entry.name] = {}
    return "" if not providers else _text({"provider": providers})


def _provider(providers: dict[str, Any], name: str, key: str, value: Any) -> Any:
    """Return the provider with this value of `key`; others of its name have a number."""
    names = (f"{name}{number or ''}" for number in chain((0,), count(2)))
    return next(
        provider
        for each in names
        if (provider := providers.setdefault(each, {key: value}))[key] == value
    )


def _vscode(data: Any, entry: Exported) -> list[SetValue]:
    changes = []
    for group_index, group in objects(data):
        for index, model in objects(group.get("models")):
            if model.get("id") in entry.names and "url" in model and entry.is_at(model["url"]):
                path = (group_index, "models", index)
                if "contextWindow" in model:
                    changes.append(SetValue((*path, "contextWindow"), entry.context_length))
                sizes = (("maxInputTokens", entry.input), ("maxOutputTokens", entry.output))
                changes += [SetValue((*path, key), value) for key, value in sizes]
    return changes


def _vscode_template(entries: Sequence[Exported]) -> str:
    models = [
        {
            "id": entry.name,
            "name": entry.name,
            "url": entry_server(entry) + "/v1/chat/completions",
            "toolCalling": "tools" in entry.model.capabilities,
            "vision": "vision" in entry.model.capabilities,
        }
        for entry in entries
    ]
    return _text([{"name": "Local", "vendor": "customendpoint", "apiType": "chat-completions",
                   "models": models}])  # fmt: skip


def entry_server(entry: Exported) -> str:
    if entry.model.url is not None:
        return server_url(entry.model.url)
    port = {"lmstudio": 1234, "ollama": 11434}.get(entry.model.engine, 8080)
    return f"http://localhost:{port}"


def _text(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"


def _aider(data: Any, entry: Exported) -> list[SetValue]:
    provider = {"lmstudio": "lm_studio", "ollama": "ollama_chat"}.get(entry.model.engine, "openai")
    keys = [f"{provider}/{name}" for name in entry.names]
    key = next((key for key in keys if look_up(data, (key,))), keys[0])
    changes = [
        SetValue((key, "max_input_tokens"), entry.input, entry.note),
        SetValue((key, "max_output_tokens"), entry.output, entry.note),
    ]
    old = look_up(data, (key,))
    if not old:
        more = {"max_tokens": entry.output, "input_cost_per_token": 0, "output_cost_per_token": 0,
                "litellm_provider": provider, "mode": "chat"}  # fmt: skip
        changes += [SetValue((key, name), value) for name, value in more.items()]
    elif isinstance(old, dict) and "max_tokens" in old:
        changes.append(SetValue((key, "max_tokens"), entry.output, entry.note))
    return changes


def _zed(data: Any, entry: Exported) -> list[SetValue]:
    changes = []
    for name, provider in objects(look_up(data, ("language_models",))):
        providers = objects(provider) if name == "openai_compatible" else [(name, provider)]
        for inner, each in providers:
            inside = ("language_models", name) + ((inner,) if inner != name else ())
            if name not in ("openai_compatible", entry.model.engine):
                continue
            for index, model in objects(each.get("available_models")):
                if model.get("name") in entry.names and entry.is_at(each.get("api_url")):
                    key = "context_window" if "context_window" in model else "max_tokens"
                    path = (*inside, "available_models", index, key)
                    changes.append(SetValue(path, entry.context_length, entry.note))
    return changes


def _zed_template(entries: Sequence[Exported]) -> str:
    providers: dict[str, Any] = {}
    for entry in entries:
        if entry.model.engine in ("lmstudio", "ollama"):
            provider = providers.setdefault(entry.model.engine, {})
        else:
            local = providers.setdefault("openai_compatible", {})
            provider = _provider(local, "Local", "api_url", entry_server(entry) + "/v1")
        provider.setdefault("available_models", []).append(
            {
                "name": entry.name,
                "max_tokens": 0,
                "supports_tool_calls": "tools" in entry.model.capabilities,
                "supports_images": "vision" in entry.model.capabilities,
            }
        )
    return _text({"language_models": providers})


_LM_STUDIO_KEY = "llm.load.contextLength"


def _cline(data: Any, entry: Exported) -> list[SetValue]:
    return [
        SetValue(("providers", name, "settings", "contextWindow"), entry.context_length)
        for name, provider in objects(look_up(data, ("providers",)))
        if isinstance(provider.get("settings"), dict)
        and provider["settings"].get("model") in entry.names
        and entry.is_at(provider["settings"].get("baseUrl"))
    ]


def _lmstudio(text: str, entries: Sequence[Exported]) -> Merged:
    mine = [
        entry for entry in entries if entry.model.engine == "lmstudio" and _lmstudio_path(entry)
    ]
    left_out = tuple(
        NotExported(
            model=entry.model.id, reason="LM Studio does not run it, or its path is unknown"
        )
        for entry in entries
        if entry not in mine
    )
    texts = [_lmstudio_fields(text, entry) for entry in mine]
    return Merged("".join(texts) or text, left_out)


def _lmstudio_fields(text: str, entry: Exported) -> str:
    if not text.strip():
        text = _text({"preset": "", "operation": {"fields": []}, "load": {"fields": []}})
    parse_json(text, strict=True)
    fields = look_up(parse_json(text), ("load", "fields"))
    if not isinstance(fields, list):
        raise DocumentError("'load.fields' is not a list")
    found = [index for index, field in objects(fields) if field.get("key") == _LM_STUDIO_KEY]
    path: tuple[str | int, ...] = ("load", "fields", len(fields))
    value: Any = {"key": _LM_STUDIO_KEY, "value": entry.context_length}
    if found:
        path, value = ("load", "fields", found[-1], "value"), entry.context_length
    return edit_json(text, [SetValue(path, value)], comments=False)


def _lmstudio_path(entry: Exported) -> str | None:
    """Return the path of the weights below LM Studio's folder of models."""
    _, mark, path = entry.proof.fingerprint.partition("path:")
    path = path.replace("\\", "/")
    parts = PurePosixPath(path).parts
    safe = mark and parts and ".." not in parts and ":" not in path and not path.startswith("/")
    return path if safe else None


def _lmstudio_file(home: Path, entry: Exported) -> Path | None:
    if entry.model.engine != "lmstudio" or (path := _lmstudio_path(entry)) is None:
        return None
    return home / ".internal" / "user-concrete-model-default-config" / f"{path}.json"


def _render_lmstudio(entries: Sequence[Exported]) -> Merged:
    texts = []
    for entry in entries:
        if file := _lmstudio_file(Path(), entry):
            texts.append(f"// {file.as_posix()}\n// {entry.note}\n{_lmstudio_fields('', entry)}")
    return Merged("".join(texts), _lmstudio("", entries).left_out)


def _app(
    place: str,
    changes_of: _Changes,
    template: Callable[[Sequence[Exported]], str] = lambda entries: "",
    *,
    comments: bool = True,
) -> App:
    merge = _json_merge(changes_of, comments=comments)
    return App(place, from_template(merge, template), merge)


JSON_APPS = {
    "json": _app("any file", _json, comments=False)._replace(variants=True),
    "lmstudio": App(
        "files in LM Studio's home folder, usually ~/.lmstudio; merge with lmstudio:FOLDER",
        _render_lmstudio,
        _lmstudio,
        bom=False,
        file_of=_lmstudio_file,
        check_loads=True,
    ),
    "opencode": _app("~/.config/opencode/opencode.json or .jsonc", _opencode, _opencode_template),
    "kilo": _app("~/.config/kilo/kilo.jsonc", _opencode, _opencode_template),
    "vscode": _app(
        "chatLanguageModels.json in the user folder of Visual Studio Code",
        _vscode,
        _vscode_template,
        comments=False,
    ),
    "aider": _app(".aider.model.metadata.json", _aider),
    "zed": _app("~/.config/zed/settings.json", _zed, _zed_template),
    "cline": advice(
        "~/.cline/data/settings/providers.json; close Cline first, which writes it, too",
        "set the model context window of the provider to {n}",
        _json_merge(_cline, comments=False),
    ),
}
