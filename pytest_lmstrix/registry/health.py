"""A read-only health check of the registry and its backups."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from msgspec import Struct

from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.formatting import count_of
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.backups import backups, contents
from pytest_lmstrix.registry.files import RegistryError, lock_file, open_to_read
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.lines import Flaw, Scan

Severity = Literal["error", "warning", "info"]

LISTED = 100
"""Findings about lines to list per severity; the rest are counted."""

_PADDING = 256  # llama.cpp rounds a context up to a multiple of it
_CLOCK_SKEW = timedelta(minutes=5)


class Problem(Struct, frozen=True, kw_only=True):
    """One finding. An `error` means that results are lost, or cannot be added."""

    severity: Severity
    where: Path
    line: int | None = None
    """Counted from 1; `None` for the file as a whole."""
    text: str


class HealthReport(Struct, frozen=True, kw_only=True):
    """All findings, in the order of the files."""

    findings: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def check_health(
    path: Path | str,
    *,
    models: Collection[str] | None = None,
    context_limits: Mapping[str, int] | None = None,
) -> HealthReport:
    """Check every line of the registry `path`, and its backups; problems are findings, not raised.

    `models` are those of the manifest: others in the registry are findings. `context_limits` are
    their declared maxima in tokens.
    """
    path = Path(os.path.realpath(path))
    findings = (*_registry(path, models, context_limits or {}), *_backups(path))
    return HealthReport(findings=findings)


def _registry(
    path: Path, models: Collection[str] | None, limits: Mapping[str, int]
) -> Iterator[Problem]:
    fold = Fold()
    found: Counter[Severity] = Counter()
    try:
        with open_to_read(path) as stream:
            scan = Scan(stream)
            for item in scan:
                if isinstance(item, Result):
                    fold.add(item)
                for severity, text in _line(item):
                    found[severity] += 1
                    if found[severity] <= LISTED:
                        yield Problem(severity=severity, where=path, line=scan.line, text=text)
    except FileNotFoundError:
        yield Problem(severity="info", where=path, text="the registry does not exist yet")
        yield from _obstacles(path)
        return
    except (OSError, RegistryError) as error:
        text = str(error).removeprefix(f"{path}: ")
        yield Problem(severity="error", where=path, text=f"{text}; a backup can be restored")
        return
    for severity, count in found.items():
        if count > LISTED:
            text = f"{count_of(count - LISTED, 'more finding')} of this severity"
            yield Problem(severity=severity, where=path, text=text)
    yield from _obstacles(path)
    yield from _models(path, fold, models, limits)
    yield Problem(severity="info", where=path, text=count_of(fold.count, "result"))


def _obstacles(path: Path) -> Iterator[Problem]:
    """Yield what prevents a run from adding results, as far as can be seen without writing."""
    folder = path.parent / "backups"
    for needed in (path, lock_file(path), folder):
        text = None
        if needed.exists():
            if needed.is_dir() != (needed == folder):
                text = f"must be a {'folder' if needed == folder else 'file'}"
            elif not os.access(needed, os.W_OK):
                text = "no permission"
        elif not os.access(next(each for each in path.parents if each.exists()), os.W_OK):
            text = "no permission to create it"
        if text is not None:
            yield Problem(severity="error", where=needed, text=f"results cannot be added: {text}")


def _line(item: Result | Acceptance | Flaw) -> Iterator[tuple[Severity, str]]:
    if isinstance(item, Flaw):
        if item.kind == "torn":
            yield (
                "warning",
                "the last line is incomplete: its writer was killed or is still writing",
            )
        elif item.kind == "newer":
            yield "warning", f"written by a later version, not evaluated: {item.reason}"
        else:
            yield "error", f"damaged: {item.reason}"
        return
    if isinstance(item, Acceptance):
        return
    if (item.verdict is Verdict.OK) != (item.outcome == "passed") and item.check in CHECKS:
        yield "error", f"verdict {item.verdict} does not match outcome {item.outcome}"
    granted = item.granted_context_length
    if granted is not None and not 0 < granted <= MAX_CONTEXT_LENGTH + _PADDING:
        yield "error", f"granted_context_length {granted:,} is out of range"
    if item.at > datetime.now(UTC) + _CLOCK_SKEW:
        yield "warning", f"is dated in the future: {item.at:%Y-%m-%d %H:%M} UTC"


def _models(
    path: Path, fold: Fold, models: Collection[str] | None, limits: Mapping[str, int]
) -> Iterator[Problem]:
    for model in fold.models():
        if models is not None and model not in models:
            text = f"{model!r} has results, but is not in the manifest"
            yield Problem(severity="warning", where=path, text=text)
        status, limit = fold.status(model), limits.get(model)
        verified = status.verified_context if status else None
        if verified is not None and limit is not None and verified > limit:
            text = f"{model!r} is verified at {verified:,} tokens, but declares {limit:,}"
            yield Problem(severity="warning", where=path, text=text)


def _backups(path: Path) -> Iterator[Problem]:
    for backup in backups(path):
        try:
            held = contents(backup)
        except RegistryError as error:
            text = str(error).removeprefix(f"{backup}: ")
            yield Problem(severity="warning", where=backup, text=text)
            continue
        text = count_of(held.results, "result")
        if held.intact:
            yield Problem(severity="info", where=backup, text=text)
        else:
            text += f", {count_of(held.damaged, 'damaged line')}"
            yield Problem(severity="warning", where=backup, text=text)
