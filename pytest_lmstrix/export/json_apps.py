"""Programs with settings in JSON, most of them with comments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pytest_lmstrix.export.app import App, Merged
from pytest_lmstrix.export.document import SetValue
from pytest_lmstrix.export.entries import Exported
from pytest_lmstrix.export.jsonc import edit_json

EXPORT_SCHEMA = 1
"""Of `json`; increased when a key is removed or changes its meaning."""


def _for_everything_else(text: str, entries: Sequence[Exported]) -> Merged:
    changes = [SetValue(("schema",), EXPORT_SCHEMA)]
    for entry in entries:
        proof = msgspec.to_builtins(entry.proof)
        fields = {
            "context_length": entry.context_length,
            "verified_context": proof["context_length"],
            **{name: proof[name] for name in proof if name not in ("model", "context_length")},
        }
        changes += [
            SetValue(("models", entry.model.id, name), value) for name, value in fields.items()
        ]
    return Merged(edit_json(text, changes, comments=False))


def _rendered(
    merge: Callable[[str, Sequence[Exported]], Merged],
) -> Callable[[Sequence[Exported]], Merged]:
    return lambda entries: merge("", entries)


JSON_APPS = {
    "json": App("any file", _rendered(_for_everything_else), _for_everything_else),
}
