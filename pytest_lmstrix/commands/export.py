"""`--lmstrix-export`: settings for other programs, printed or merged into their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.measured import PADDING
from pytest_lmstrix.core.sanitize import clean, one_line
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.export.apps import APPS, files_of, parse_targets
from pytest_lmstrix.export.entries import Exported, NotExported, one_of_each, select
from pytest_lmstrix.export.files import ExportError, FilePlan, diff, plan_file, write
from pytest_lmstrix.options import Settings
from pytest_lmstrix.registry.known import VerifyingCheck
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.system import owners
from pytest_lmstrix.system.addresses import hosts_of
from pytest_lmstrix.system.host_lock import host_lock
from pytest_lmstrix.weights.source import with_home

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

    def run(
        self, out: Print, notes: Print, *, dry_run: bool, granted: Callable[[Model], int]
    ) -> bool:
        """Print the settings, and merge them into the files that were named.

        All files are planned before the first one is written. Only settings and diffs are printed
        to `out`. Where a program may ignore its settings, each model is loaded once: `granted`
        returns the context length it gets.

        Returns whether there is a verified model.

        Raises:
            ExportError: A file cannot be merged into, or not be written.
        """
        plans = []
        for name, path in self._targets:
            if path is not None:
                plans += list(self._plans(name, self._start / with_home(path), notes))
        targets = [plan.target for plan in plans]
        for plan in plans:
            if targets.count(plan.target) > 1:
                raise ExportError(
                    f"{plan.path}: is given twice; export to it once, or select one model with -k"
                )
        for line in _reasons(self._others):
            notes(line)
        if not self._entries:
            notes("no model is verified: nothing to export")
        for name, path in self._targets:
            if path is None and self._entries:
                self._print(name, out, notes)
        for plan in plans:
            _write(plan, out, notes, dry_run)
        for name, path in self._targets:
            app = APPS[name]
            if path is not None and app.check_loads and app.file_of is not None and not dry_run:
                models, _ = self._models(name)
                written = [each for each in models if app.file_of(Path(), each) is not None]
                for line in _taken(name, written, granted):
                    notes(line)
        return bool(self._entries)

    def _print(self, name: str, out: Print, notes: Print) -> None:
        app = APPS[name]
        notes(f"{name}: {app.place}")
        entries, variants = self._models(name)
        rendered = app.render(entries)
        for line in rendered.text.splitlines():
            out(clean(line, 100_000))
        for line in _reasons((*variants, *rendered.left_out), name):
            notes(line)

    def _models(self, name: str) -> tuple[Sequence[Exported], Sequence[NotExported]]:
        """Return the models for a program, and those that it cannot tell apart."""
        return (self._entries, ()) if APPS[name].variants else one_of_each(self._entries)

    def _plans(self, name: str, path: Path, notes: Print) -> Iterator[FilePlan]:
        app = APPS[name]
        entries, variants = self._models(name)
        for line in _reasons(variants, name):
            notes(line)
        if app.file_of is not None:  # models without a file
            for line in _reasons(app.render(entries).left_out, name):
                notes(line)
        for file, models in files_of(app, path, entries):
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


def granted_by_lm_studio(settings: Settings, model: Model) -> int:
    """Load `model` in LM Studio without a context length, and return the granted one in tokens.

    The instance is our own and is unloaded again; the host is locked meanwhile, as in a run.

    Raises:
        Failure: It does not load, or the server does not answer.
    """
    from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

    host = next(iter(hosts_of("lmstudio", settings.hosts)), None)
    engine = LmStudioEngine(
        host,
        load_timeout=settings.load_timeout,
        reply_timeout=settings.reply_timeout,
        owner=owners.owner_token(),
    )
    try:
        with host_lock(engine.host):
            engine.sweep(owners.owner_is_dead)
            instance = engine.load(model, None, _Silent())
            try:
                return instance.context_length
            finally:
                instance.unload()
    finally:
        engine.close()


class _Silent:
    def __call__(self, fraction: float, /) -> None: ...

    def prefill(self, done: int, total: int) -> None: ...


def _taken(app: str, entries: Iterable[Exported], granted: Callable[[Model], int]) -> Iterator[str]:
    """Yield for each model whether a load obeys what was written for it."""
    for entry in entries:
        name, asked = one_line(entry.model.id), entry.context_length
        try:
            loaded = granted(entry.model)
        except (Failure, OSError) as error:
            text = error.text if isinstance(error, Failure) else str(error)
            yield f"{app}: {name}: not checked whether it is in force: {one_line(text, 500)}"
            continue
        if asked <= loaded < asked + PADDING:
            yield f"{app}: {name}: in force: it loads with {loaded:,} tokens"
        else:
            yield f"{app}: {name}: loaded with {loaded:,} tokens, not the {asked:,} written"


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
