"""`--lmstrix-export`: settings for other programs, printed or merged into their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pytest_lmstrix.core.sanitize import clean, one_line
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.export.apps import APPS, files_of, parse_targets
from pytest_lmstrix.export.entries import Exported, NotExported, select
from pytest_lmstrix.export.files import ExportError, FilePlan, diff, plan_file, write
from pytest_lmstrix.registry.known import VerifyingCheck
from pytest_lmstrix.registry.store import Registry

Print = Callable[[str], None]


class Exporter:
    """The verified models, and the programs and files they are exported to.

    Paths are relative to `start`, sources of models to `folder`.

    Raises:
        ValueError: A program is not known.
        RegistryError: The registry cannot be read.
    """

    def __init__(
        self,
        targets: Iterable[str],
        models: Sequence[Model],
        registry: Registry,
        folder: Path,
        *,
        check: VerifyingCheck | None,
        margin: float,
        start: Path,
    ) -> None:
        self._targets = [each for text in targets for each in parse_targets(text)]
        self._start = start
        self._entries, self._others = select(
            models, registry, folder=folder, check=check, margin=margin
        )

    def run(self, out: Print, notes: Print, *, dry_run: bool) -> bool:
        """Print the settings, and merge them into the files that were named.

        All files are planned before the first one is written. Only settings and diffs are printed
        to `out`.

        Returns whether there is a verified model.

        Raises:
            ExportError: A file cannot be merged into, or not be written.
        """
        plans = []
        for name, path in self._targets:
            if path is not None:
                plans += list(self._plans(name, self._start / Path(path).expanduser(), notes))
        targets = [plan.target for plan in plans]
        for plan in plans:
            if targets.count(plan.target) > 1:
                raise ExportError(f"{plan.path}: is given twice; export to one at a time")
        for line in _reasons(self._others):
            notes(line)
        if not self._entries:
            notes("no model is verified: nothing to export")
        for name, path in self._targets:
            if path is None and self._entries:
                self._print(name, out, notes)
        for plan in plans:
            _write(plan, out, notes, dry_run)
        return bool(self._entries)

    def _print(self, name: str, out: Print, notes: Print) -> None:
        app = APPS[name]
        notes(f"{name}: {app.place}")
        rendered = app.render(self._entries)
        for line in rendered.text.splitlines():
            out(clean(line, 100_000))
        for line in _reasons(rendered.left_out, name):
            notes(line)

    def _plans(self, name: str, path: Path, notes: Print) -> Iterator[FilePlan]:
        app = APPS[name]
        if app.file_of is not None:  # models without a file
            for line in _reasons(app.render(self._entries).left_out, name):
                notes(line)
        for file, models in files_of(app, path, self._entries):
            left_out: list[NotExported] = []

            def edit(
                text: str,
                models: Sequence[Exported] = models,
                left_out: list[NotExported] = left_out,
            ) -> str:
                assert app.merge is not None  # as `parse_targets` has checked
                merged = app.merge(text, models)
                left_out.extend(merged.left_out)
                return merged.text

            yield plan_file(file, edit, bom=app.bom, inside=path if app.file_of else None)
            for line in _reasons(left_out, name):
                notes(line)


def _reasons(left_out: Iterable[NotExported], name: str = "") -> Iterator[str]:
    for each in left_out:
        where = f"{name}: " if name else ""
        yield f"{where}not exported: {one_line(each.model)}: {one_line(each.reason, 1_000)}"


def _write(plan: FilePlan, out: Print, notes: Print, dry_run: bool) -> None:
    shown = one_line(str(plan.path), 1_000)
    if not plan.changes:
        notes(f"{shown}: nothing to change")
        return
    for line in diff(plan):
        out(line)
    if dry_run:
        notes(f"{shown}: not written (dry run)")
        return
    backup = write(plan)
    kept = f"; the former one is {one_line(backup.name, 1_000)}" if backup else ""
    notes(f"{shown}: written{kept}")
