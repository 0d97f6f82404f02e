"""Programs with settings of one line each, and those without a file to merge into."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from pytest_lmstrix.export.app import App, Merged, advice
from pytest_lmstrix.export.document import (
    COMMENT_MARK,
    DocumentError,
    SetValue,
    at,
    lines_of,
    newline_of,
    same,
    with_changes,
)
from pytest_lmstrix.export.entries import Exported, NotExported
from pytest_lmstrix.export.json_apps import NO_ENTRY

_INI_SECTION = re.compile(r"\s*\[\s*([^\]\r\n]+)\]\s*(?:[#;].*)?")
_INI_KEY = re.compile(r"(\s*)([^=\s\[#;][^=]*?)(\s*=\s*)([^#;]*?)(\s*)([#;].*)?")
_SIZE_KEYS = ("ctx-size", "c", "LLAMA_ARG_CTX_SIZE")
"""Spellings of one key; the first one that is there counts."""
_INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE",
                 "RENDERER", "PARSER", "REQUIRES", "DRAFT")  # fmt: skip
_INSTRUCTION = re.compile(r"[ \t]*([A-Za-z]+)[ \t]+(\S.*)", re.DOTALL)
_CODEX_KEY = "model_context_window"
_CODEX_SIZE = re.compile(
    rf"^([ \t]*[\"']?{_CODEX_KEY}[\"']?[ \t]*=[ \t]*)([+\w]+)(?:[ \t]*# {COMMENT_MARK}[^\r\n]*)?",
    re.MULTILINE,
)


class _Line(Struct, frozen=True):
    section: str
    key: str
    value: str
    index: int


def _llama_server(text: str, entries: Sequence[Exported]) -> Merged:
    left_out = []
    newline = newline_of(text)
    for entry in entries:
        lines = lines_of(text)
        parsed = _ini(lines)
        names = [each.section for each in parsed if not each.key and each.section == entry.name]
        if names:
            text = "".join(_set_in_section(lines, parsed, entry, newline))
        elif reason := _unsafe_path(entry.file):
            left_out.append(NotExported(model=entry.model.id, reason=reason))
        else:
            start = "" if not text else newline if text.endswith("\n") else newline * 2
            text += start + newline.join([f"[{entry.name}]", f"model = {entry.file}",
                                  f"; {entry.note}", f"ctx-size = {entry.context_length}",
                                  "parallel = 1", ""])  # fmt: skip
        _ini(lines_of(text))
    return Merged(text, tuple(left_out))


def _unsafe_path(file: Path | None) -> str:
    if file is None:
        return f"{NO_ENTRY}, with the path of its weights"
    return "the path of its weights has # or ;" if re.search(r"[#;\r\n]", str(file)) else ""


def _ini(lines: Sequence[str]) -> list[_Line]:
    """Return sections, with an empty key, and keys.

    Raises:
        DocumentError: A line is neither; the program would refuse the whole file.
    """
    found = []
    section = ""
    for index, line in enumerate(lines):
        content = line.rstrip("\r\n")
        if not content.strip() or content.lstrip()[0] in "#;":
            continue
        if name := _INI_SECTION.fullmatch(content):
            section = name[1]
            found.append(_Line(section, "", "", index))
        elif pair := _INI_KEY.fullmatch(content):
            found.append(_Line(section, pair[2].lstrip("-") or "-", pair[4], index))
        else:
            raise DocumentError(f"expected a section or 'key = value' at line {index + 1}")
    return found


def _set_in_section(
    lines: list[str], parsed: Sequence[_Line], entry: Exported, newline: str
) -> list[str]:
    # Of a section that is given twice, the last one counts.
    header = max(each.index for each in parsed if each.section == entry.name and not each.key)
    end = min((e.index for e in parsed if not e.key and e.index > header), default=len(lines))
    keys = [each for each in parsed if each.key and header < each.index < end]
    sizes = [each for name in _SIZE_KEYS for each in keys if each.key == name]
    note = f"; {entry.note}{newline}"
    if not sizes:
        head = lines[header] if lines[header].endswith("\n") else lines[header] + newline
        added = f"ctx-size = {entry.context_length}{newline}"
        return [*lines[:header], head, note, added, *lines[header + 1 :]]
    size = [each for each in sizes if each.key == sizes[0].key][-1]
    if size.value.strip() == str(entry.context_length):
        return lines
    match = _INI_KEY.fullmatch(lines[size.index].rstrip("\r\n"))
    assert match is not None
    start, stop = match.span(4)
    new = lines[size.index][:start] + str(entry.context_length) + lines[size.index][stop:]
    return _with_note_above(lines, size.index, new, note, "; ")


def _with_note_above(lines: list[str], index: int, new: str, note: str, mark: str) -> list[str]:
    above = lines[index - 1] if index else ""
    first = index - 1 if above.startswith(mark + COMMENT_MARK) else index
    return [*lines[:first], note, new, *lines[index + 1 :]]


def _ollama(text: str, entries: Sequence[Exported]) -> Merged:
    """Set the size in a Modelfile, which is about one model."""
    if not text.strip():
        return _ollama_render(entries)
    lines = lines_of(text)
    instructions = _modelfile(text, lines)
    weights = [value for _, name, value in instructions if name == "FROM"]
    if not weights:
        raise DocumentError("has no line FROM")
    named = {value.strip('"').removesuffix(":latest") for value in weights}
    mine = [entry for entry in entries if _untagged(_ollama_source(entry)) in named]
    others = tuple(NotExported(model=entry.model.id, reason=f"the file is about {weights[0]}")
                   for entry in entries if entry not in mine)  # fmt: skip
    for entry in mine:
        newline = newline_of(text)
        note, value = f"# {entry.note}{newline}", str(entry.context_length)
        sizes = [
            (index, match)
            for index, name, rest in instructions
            if name == "PARAMETER" and (match := re.fullmatch(r"num_ctx\s+(\S+)", rest))
        ]
        if not sizes:
            start = "" if text.endswith("\n") else newline
            return Merged(f"{text}{start}{note}PARAMETER num_ctx {value}{newline}", others)
        index, match = sizes[-1]  # the last one counts
        if match[1] != value:
            old = lines[index]
            place = old.rindex(match[1])
            new = old[:place] + value + old[place + len(match[1]) :]
            text = "".join(_with_note_above(lines, index, new, note, "# "))
    return Merged(text, others)


def _modelfile(text: str, lines: Sequence[str]) -> list[tuple[int, str, str]]:
    """Return the instructions: index of the line, name and value, of which only quoted ones have
    more lines."""
    found = []
    open_text = ""
    for index, line in enumerate(lines):
        if open_text:
            open_text += line
            open_text = "" if _is_closed(open_text) else open_text
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _INSTRUCTION.match(line)
        if match is None or match[1].upper() not in _INSTRUCTIONS:
            raise DocumentError(f"expected an instruction with a value at line {index + 1}")
        name, value = match[1].upper(), match[2].strip()
        found.append((index, name, value))
        if name in ("PARAMETER", "MESSAGE"):  # a word precedes the value
            value = "".join(value.split(maxsplit=1)[1:])
        open_text = "" if _is_closed(value) else value + line[len(line.rstrip()) :]
    if open_text:
        raise DocumentError(f'a text in " without an end at {at(text, len(text))}')
    return found


def _is_closed(value: str) -> bool:
    """Return whether a value is complete, as Ollama has it; else the next line continues it."""
    value = value.strip()
    quote = '"""' if value.startswith('"""') else '"' if value.startswith('"') else ""
    return not quote or (len(value) >= 2 * len(quote) and value.endswith(quote))


def _untagged(name: str | None) -> str | None:
    """Return a name of Ollama without the tag that it has by default."""
    return name.removesuffix(":latest") if name else None


def _ollama_source(entry: Exported) -> str | None:
    if entry.model.engine == "ollama":
        return entry.name
    source = entry.model.source or ""
    if hub := re.fullmatch(r"hf://([^/]+/[^/]+)/([^@]+)(?:@.*)?", source):
        return f"hf.co/{hub[1]}:{hub[2]}"
    return str(entry.file) if entry.file else None


def _ollama_render(entries: Sequence[Exported]) -> Merged:
    left_out = []
    texts = []
    for entry in entries:
        if source := _ollama_source(entry):
            name = re.sub(r"[^\w.-]+", "-", entry.name).strip("-.")
            texts.append(
                f"# ollama create {name}-{entry.context_length} -f FILE\nFROM {source}\n"
                f"# {entry.note}\nPARAMETER num_ctx {entry.context_length}\n"
            )
        else:
            reason = "the file of its weights is not known: set its source in the manifest"
            left_out.append(NotExported(model=entry.model.id, reason=reason))
    return Merged("\n".join(texts), tuple(left_out))


def _ollama_merge(text: str, entries: Sequence[Exported]) -> Merged:
    if not text.strip() and len(entries) > 1:
        raise DocumentError("a new Modelfile is about one model: select one with -k")
    return _ollama(text, entries)


def _codex(text: str, entries: Sequence[Exported]) -> Merged:
    data = _toml(text)
    mine = [entry for entry in entries if data.get("model") in entry.names]
    others = tuple(NotExported(model=entry.model.id, reason="is not the model of this file")
                   for entry in entries if entry not in mine)  # fmt: skip
    for entry in mine[:1]:
        wanted = with_changes(data, [SetValue((_CODEX_KEY,), entry.context_length)])
        if data.get(_CODEX_KEY) == entry.context_length:
            continue
        new = _set_toml(text, entry)
        if not same(_sorted(_toml(new)), _sorted(wanted)):
            raise DocumentError(f"'{_CODEX_KEY}' cannot be set without changing other values")
        text = new
    return Merged(text, others)


def _set_toml(text: str, entry: Exported) -> str:
    """Set the size before the first table, where the keys of the whole file are."""
    newline = newline_of(text)
    value, note = str(entry.context_length), f"  # {entry.note}"
    table = re.search(r"^[ \t]*\[", text, re.MULTILINE)
    end = table.start() if table else len(text)
    old = _CODEX_SIZE.search(text, 0, end)
    if old:
        rest = text[old.end() :]
        note = note if re.match(r"[ \t]*(\r?\n|\Z)", rest) else ""
        return text[: old.start()] + old[1] + value + note + rest
    model = re.compile(r"^[ \t]*[\"']?model[\"']?[ \t]*=[^\r\n]*(\r?\n|\Z)", re.MULTILINE).search(
        text, 0, end
    )
    place = model.end() if model else 0
    start = newline if model and not model[1] else ""
    return f"{text[:place]}{start}{_CODEX_KEY} = {value}{note}{newline}{text[place:]}"


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DocumentError(str(error)) from None


def _sorted(data: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(data.items()))


def _codex_render(entries: Sequence[Exported]) -> Merged:
    blocks = (
        f"# for {entry.name}, one model at a time\nmodel = {_quoted(entry.name)}\n"
        f"{_CODEX_KEY} = {entry.context_length}  # {entry.note}\n"
        for entry in entries
    )
    return Merged("\n".join(blocks))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


LINE_APPS = {
    "ollama": App("a Modelfile, for ollama create", _ollama_render, _ollama_merge),
    "llama-server": App(
        "the file of llama-server --models-preset",
        lambda entries: _llama_server("version = 1\n", entries),
        _llama_server,
        bom=False,
    ),
    "codex": App("~/.codex/config.toml", _codex_render, _codex),
    "roo": advice(
        "Roo Code's settings, which Visual Studio Code keeps",
        "Roo Code asks LM Studio for the size, so load it with {n}; for an OpenAI-compatible"
        " provider set the context window size to {n}",
    ),
    "open-webui": advice(
        "Open WebUI's database",
        "only for Ollama: set num_ctx to {n} under Admin Panel, Models, Advanced Params",
    ),
    "jan": advice(
        "Jan's model settings, which it writes itself", "set the context size of the model to {n}"
    ),
}
