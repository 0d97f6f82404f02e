"""`--lmstrix-import`: reads the models and results of lmstrix, 1.0.52 to 1.0.84."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.measured import MAX_SECONDS, MAX_SIZE_BYTES, MAX_TOKENS_PER_SECOND, is_sane
from pytest_lmstrix.core.sanitize import clean, one_line
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Model, Result
from pytest_lmstrix.core.verdicts import Verdict

ENGINE = "lmstudio"
"""The only engine of lmstrix."""

IMPORT_RUN = "lmstrix-import"
"""The `run` of imported results."""

MAX_FILE_BYTES = 64_000_000

_MAX_DIGITS = 40
_KEYS = frozenset({
    "id", "model_id", "short_id", "path", "size_bytes", "ctx_in", "ctx_out", "has_tools",
    "has_vision", "capabilities", "tested_max_context", "loadable_max_context",
    "last_known_good_context", "last_known_bad_context", "context_test_status", "context_test_log",
    "context_test_date", "ttft_seconds", "tps", "description", "keywords", "failed", "error_msg",
})  # fmt: skip
"""All keys of a model in `lmstrix.json`, those without a counterpart too."""
_STATUSES = ("untested", "testing", "completed", "failed")
_NO_REASON = "lmstrix recorded no reason"


class NotImported(Struct, frozen=True, kw_only=True):
    """A value of the file that was left out."""

    model: str
    key: str
    value: str
    """In JSON, shortened."""
    reason: str


class Database(Struct, frozen=True, kw_only=True):
    """The contents of an `lmstrix.json`."""

    models: tuple[Model, ...]
    """No id twice."""
    results: tuple[Result, ...]
    left_out: tuple[NotImported, ...]


def read_database(path: Path) -> Database:
    """Read the file `path`, whatever single values it contains.

    Raises:
        ValueError: It cannot be read, or is not a database of lmstrix.
    """
    llms = _decoded(path).get("llms")
    if not isinstance(llms, dict):
        raise ValueError("is not a database of lmstrix: it needs an object 'llms'")
    left_out = [_twice(key, "llms") for key in getattr(llms, "repeated", ())]
    models: dict[str, Model] = {}
    results: list[Result] = []
    for key, value in llms.items():
        record = _Record(key, value)
        model = record.model(models)
        if model is not None:
            models[model.id] = model
            results += record.results(model)
        left_out += record.left_out
    return Database(models=tuple(models.values()), results=tuple(results), left_out=tuple(left_out))


def new_results(
    results: Collection[Result], known: Collection[str], registered: Iterator[Result]
) -> tuple[Result, ...]:
    """Return the `results` of `known` models that are not among the `registered` ones yet."""
    seen = {_identity(old) for old in registered if old.imported}
    return tuple(new for new in results if new.model in known and _identity(new) not in seen)


def invalid_in_manifest(models: Collection[Model], known: Collection[str]) -> Iterator[NotImported]:
    """Yield the ids of `models` that are not `known` after appending, as they are not valid."""
    for model in models:
        if model.id not in known:
            yield NotImported(
                model=model.id, key="id", value=_shown(model.id), reason="not valid in a manifest"
            )


def _identity(result: Result) -> tuple[object, ...]:
    return result.model, result.check, result.context_length, result.at, result.verdict


class _Object(dict[str, Any]):
    """A JSON object; of a key given twice, the first value counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.repeated: list[str] = []
        """Keys given again."""
        for key, value in pairs:
            if key in self:
                self.repeated.append(key)
            else:
                self[key] = value


def _decoded(path: Path) -> Mapping[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("is not a file")
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        decoded = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_Object, parse_int=_whole_number
        )
    except RecursionError:
        raise ValueError("is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise ValueError("is not a database of lmstrix: it needs an object 'llms'")
    return decoded


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _twice(model: str, key: str) -> NotImported:
    return NotImported(model=model, key=key, value="", reason="given twice; the first one counts")


class _Record:
    """Reads one entry of `llms`, and lists what is left out."""

    def __init__(self, key: str, value: object) -> None:
        self._name = key
        self._value = value
        self._fields: dict[str, Any] = value if isinstance(value, dict) else {}
        self.left_out = [_twice(key, name) for name in getattr(value, "repeated", ())]

    def model(self, others: Collection[str]) -> Model | None:
        """Return the model of the entry, if it has an id that is not among the `others`."""
        if not isinstance(self._value, dict):
            self._leave_out("", self._value, "not an object")
            return None
        key = "id" if "id" in self._fields else "model_id"
        id_ = self._fields.get(key, self._name)
        if not isinstance(id_, str) or not id_:
            self._leave_out(key, id_, "not a text")
            return None
        if id_ in others:
            self._leave_out(key, id_, "another entry has this id; the first one counts")
            return None
        for name in sorted(self._fields.keys() - _KEYS):
            self._leave_out(name, self._fields[name], "not a key of lmstrix")
        return Model(
            id=id_,
            engine=ENGINE,
            context_limit=self._whole("ctx_in", MAX_CONTEXT_LENGTH),
            size_bytes=self._whole("size_bytes", MAX_SIZE_BYTES),
            capabilities=tuple(self._capabilities()),
        )

    def results(self, model: Model) -> Iterator[Result]:
        """Yield the results of `model`; one date counts for all, as in lmstrix."""
        failed = self._status() == "failed" or self._flag(self._fields, "failed")
        good = self._good(model)
        bad = self._whole("last_known_bad_context", MAX_CONTEXT_LENGTH)
        speeds = self._speeds(good)
        loadable = self._whole("loadable_max_context", MAX_CONTEXT_LENGTH)
        if not good and bad is None:
            for name, value in (*speeds.items(), ("loadable_max_context", loadable)):
                if value is not None:
                    self._leave_out(name, value, "there is no size that it belongs to")
            if failed:
                self._leave_out("context_test_status", "failed", "lmstrix recorded no size")
            return
        at = self._date()
        if at is None:
            for name in ("tested_max_context", "last_known_good_context", "last_known_bad_context"):
                if self._fields.get(name) is not None:
                    self._leave_out(name, self._fields[name], "a result needs a date")
            return
        notes = (f"loaded up to {loadable:,} tokens",) if loadable is not None else ()
        for size in sorted(good):
            yield self._result(model, at, size, Verdict.OK, "", notes, **speeds)
        if bad is not None:
            text = self._text("error_msg")
            verdict = classify(text) if text else Verdict.ENGINE_ERROR
            detail = clean(text, 2_000) or _NO_REASON
            yield self._result(model, at, bad, verdict, detail, notes)

    def _result(
        self,
        model: Model,
        at: datetime,
        size: int,
        verdict: Verdict,
        detail: str,
        notes: tuple[str, ...],
        *,
        ttft_seconds: float | None = None,
        tps: float | None = None,
    ) -> Result:
        return Result(
            run=IMPORT_RUN,
            at=at,
            model=model.id,
            engine=ENGINE,
            check="full",
            context_length=size,
            verdict=verdict,
            outcome=verdict.outcome,
            detail=detail,
            ttft_seconds=ttft_seconds,
            decode_tokens_per_second=tps,
            notes=notes,
            imported=True,
        )

    def _good(self, model: Model) -> set[int]:
        sizes = set()
        for name in ("tested_max_context", "last_known_good_context"):
            size = self._whole(name, MAX_CONTEXT_LENGTH)
            if size is not None and model.context_limit and size > model.context_limit:
                self._leave_out(name, size, f"above the declared {model.context_limit:,}")
            elif size is not None:
                sizes.add(size)
        return sizes

    def _speeds(self, good: Collection[int]) -> dict[str, float | None]:
        speeds = {
            "ttft_seconds": self._number("ttft_seconds", MAX_SECONDS),
            "tps": self._number("tps", MAX_TOKENS_PER_SECOND),
        }
        if len(good) < 2:
            return speeds
        for name, value in speeds.items():
            if value is not None:
                sizes = " or ".join(f"{size:,}" for size in sorted(good))
                self._leave_out(name, value, f"measured at {sizes} tokens: not recorded which")
        return {}

    def _status(self) -> object:
        status = self._fields.get("context_test_status")
        if status is not None and status not in _STATUSES:
            self._leave_out("context_test_status", status, f"not one of {', '.join(_STATUSES)}")
        return status

    def _capabilities(self) -> Iterator[str]:
        given = self._fields.get("capabilities")
        if given is not None and not isinstance(given, dict):
            self._leave_out("capabilities", given, "not an object")
        given = given if isinstance(given, dict) else {}
        for name, flag, key in (
            ("vision", "has_vision", "vision"),
            ("tools", "has_tools", "trained_for_tool_use"),
        ):
            if self._flag(self._fields, flag) or self._flag(given, key, "capabilities."):
                yield name

    def _flag(self, fields: Mapping[str, Any], name: str, where: str = "") -> bool:
        value = fields.get(name)
        if value is not None and not isinstance(value, bool):
            self._leave_out(f"{where}{name}", value, "not true or false")
        return value is True

    def _text(self, name: str) -> str:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            self._leave_out(name, value, "not a text")
        return value if isinstance(value, str) else ""

    def _whole(self, name: str, most: int) -> int | None:
        value = self._fields.get(name)
        if type(value) is int and 1 <= value <= most:
            return value
        if value is not None:
            self._leave_out(name, value, f"not a whole number from 1 to {most:,}")
        return None

    def _number(self, name: str, most: float) -> float | None:
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not is_sane(value, most):
            self._leave_out(name, value, f"not a number from 0 to {most:,}")
            return None
        return float(value)

    def _date(self) -> datetime | None:
        text = self._fields.get("context_test_date")
        if text is None:
            return None
        try:
            # lmstrix writes local time without a zone.
            return datetime.fromisoformat(text).astimezone(UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            self._leave_out("context_test_date", text, "not a date and time")
            return None

    def _leave_out(self, key: str, value: object, reason: str) -> None:
        self.left_out.append(
            NotImported(model=self._name, key=key, value=_shown(value), reason=reason)
        )


def _shown(value: object) -> str:
    try:
        return one_line(json.dumps(value, ensure_ascii=False), 60)
    except RecursionError:
        return "..."
